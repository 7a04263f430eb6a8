"""The checkpoint of a run of ``kind: real``."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from elysium_core.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from elysium_core.checkpoint.integrity import MANIFEST_NAME, hash_file, write_manifest
from elysium_core.checkpoint.locations import checkpoint_folder
from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path
from elysium_core.network.model_config import CONFIG_NAME, ElysiumConfig
from elysium_core.training.real.grown_weights import KnownNames
from elysium_core.training.real.real_model import llm_settings, model_settings, vision_settings
from elysium_core.training.real.real_recipe import RealRecipe
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.real.rows_apart import leave_following_alone
from elysium_core.training.real.score_fit import fit_find_scores, fit_scores, follow_answers
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER
from elysium_core.training.snapshots import find_weights, load_weights

CHECKPOINT_FOLDER = "checkpoint"
NOTICE_NAME = "NOTICE"
_SCORES = ("follow_scores", "find_scores", "name_scores")

_LOG = logging.getLogger(__name__)


def export_run(recipe: RealRecipe, folder: Path, target: Path | None = None) -> Path:
    """Write the weights of the recipe's ``export`` stage as a checkpoint in half precision, for inference alone.

    The checkpoint's scores are calibrated on the held-out pairs and photos. A run that extends a checkpoint takes over
    its calibration of what was not trained, and its rows of names are kept apart from following
    (:mod:`elysium_core.training.real.rows_apart`).

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        target: The checkpoint's folder; ``<folder>/checkpoint`` if omitted.

    Raises:
        DataError: The stage has left no weights, or not those of this recipe.
    """
    target = target or folder / CHECKPOINT_FOLDER
    path = _weights_of(recipe.export, folder)
    run = RealStageRun(recipe, recipe.export, folder)
    model = run.model.eval()
    load_weights(model, path)
    if recipe.extends:
        (held_out,) = run.held_out()
        earlier = load_checkpoint(recipe.extends, dtype=torch.float32).network.llm.model.embed_tokens.weight
        before = KnownNames.of_checkpoint(recipe.extends)
        leave_following_alone(model, held_out.pairs.to(run.device), before, earlier.detach().to(run.device))
    settings = replace(model_settings(recipe.model), **_calibrations(run))
    save_checkpoint(
        target,
        model.network,
        settings,
        llm_settings(recipe.model, model.tokenizer.vocab_size),
        vision_settings(recipe.model).to_dict(),
        dtype=torch.float16,
        llm_folder=folder / TOKENIZER_FOLDER,
    )
    _write_notice(recipe, target)
    return target


def _weights_of(stage: str, folder: Path) -> Path:
    path = find_weights(folder / stage)
    if path is None:
        raise DataError(f"stage {stage} has left no weights in {folder / stage}; run the recipe first")
    return path


def _calibrations(run: RealStageRun) -> dict[str, Any]:
    """Calibrations of followed and of found boxes, by their names in the config."""
    scores = _kept_calibrations(run.recipe)
    if len(scores) == len(_SCORES):
        return scores
    (batch,) = run.held_out()
    batch, words = batch.to(run.device), run.model.words
    if "follow_scores" not in scores:
        fit = fit_scores(follow_answers(run.model, batch.pairs))
        _LOG.info("scores of followed boxes: %s", json.dumps(asdict(fit)))
        scores["follow_scores"] = fit.calibration
    if words is not None:
        fits = fit_find_scores(run.model, words, batch.frames, run.recipe.model.evidence_names)
        _LOG.info("scores of found boxes: %s", json.dumps(asdict(fits)))
        scores |= {"find_scores": fits.alone.calibration, "name_scores": fits.by_name}
    return scores


def _kept_calibrations(recipe: RealRecipe) -> dict[str, Any]:
    """Those of an extended checkpoint that still hold: of following, and of finding if no selector was trained."""
    if not recipe.extends:
        return {}
    earlier = ElysiumConfig.from_file(checkpoint_folder(recipe.extends) / CONFIG_NAME)
    stages = recipe.stages.values()
    trains_selector = any(stage.selector_lr or stage.encoder_lr for stage in stages)
    names = _SCORES[:1] if trains_selector else _SCORES
    return {name: getattr(earlier, name) for name in names}


def _write_notice(recipe: RealRecipe, folder: Path) -> None:
    """Say beside the weights where they come from, and list that file in the manifest, too."""
    with atomic_path(folder / NOTICE_NAME) as temporary:
        temporary.write_text(notice(recipe), encoding="utf-8")
    listed = [line.split(maxsplit=1)[1] for line in (folder / MANIFEST_NAME).read_text(encoding="utf-8").splitlines()]
    write_manifest(folder, {folder / name for name in (*listed, NOTICE_NAME)})


def notice(recipe: RealRecipe) -> str:
    """Where the weights come from: the encoder's file and terms, and what was trained on."""
    weights = Path(recipe.model.encoder_weights)
    try:
        with safe_open(weights, "pt") as stored:
            metadata = stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read the encoder's weights {weights}: {error}") from error
    source, terms = metadata.get("source", "an unnamed source"), metadata.get("license", "unknown")
    lines = [
        f"Vision encoder: {recipe.model.encoder}, started from weights of {source}; licence {terms}.",
        f"sha256 of that file: {hash_file(weights)}",
        f"Trained on photos of {', '.join(Path(path).name for path in recipe.data.photos)}, which are not part of it.",
    ]
    if recipe.data.cutouts:
        lines.append("Cut-outs were made of the same photos.")
    if recipe.extends and (earlier := checkpoint_folder(recipe.extends) / NOTICE_NAME).is_file():
        text = earlier.read_text(encoding="utf-8").strip()
        lines += [
            "What follows objects, and the language model, come from an earlier model, of which was said:",
            text,
        ]
    return "\n".join(lines) + "\n"
