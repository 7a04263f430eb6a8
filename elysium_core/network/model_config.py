"""The settings of a model, as stored in its ``config.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from elysium_core.calibration import UNCALIBRATED, NameCalibration, ScoreCalibration
from elysium_core.errors import ModelFileError
from elysium_core.io.files import read_settings_text
from elysium_core.network.crop_config import CropConfig

CONFIG_NAME = "config.json"
CONV_SELECTOR = "conv_t_selector"
FOLLOW_MODES = ("frame", "crop")
"""What a model follows given objects in: whole frames, or crops around them."""
DESCRIBE_MODES = ("clip", "frame", "none")
"""What a model can describe an object from: a clip or one frame, one frame, or nothing."""
FIND_MODES = ("frame", "parts")
"""What a model finds expressions in: the whole frame, or also its quarters."""
WINDOW_MODES = ("anchor", "growing")
"""What a model sees in stream mode: an anchor frame and the live one, or a growing clip."""
_LONGEST_SYSTEM_TEXT = 4096
_LONGEST_CLIP = 32
_MOST_NAMES, _LONGEST_NAME = 10_000, 100
_MOST_TOKENS = 65_536
# The published config names the code that was released with it, which this package replaces: the names are accepted
# and ignored. A config that names other code is refused.
_PUBLISHED_CODE = {
    "AutoConfig": "modeling_elysium.ElysiumConfig",
    "AutoModelForCausalLM": "modeling_elysium.ElysiumForCausalLM",
}
PUBLISHED_SYSTEM_TEXT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Settings of the token adapter between vision encoder and projector.

    Attributes:
        type: Name in the adapter registry (:mod:`elysium_core.network.adapters`).
        in_token_num: Visual tokens a frame before the adapter, N.
        out_token_num: Visual tokens a frame after it, K.
        num_features: Width of a visual token.
        gate: How the gate is trained: ``hard`` (as published) or ``straight_through``; both compute the same.
        neck: Channels of the convolutions of ``conv_t_selector``; of no effect for other adapters.
        out_features: Width of the tokens that ``conv_t_selector`` gives.
    """

    type: str = "t_selector"
    in_token_num: int = 576
    out_token_num: int = 108
    num_features: int = 1024
    gate: str = "hard"
    neck: int = 96
    out_features: int = 128

    def to_dict(self) -> dict[str, Any]:
        """Content of ``adapter_config``; the published adapter has the published keys."""
        content: dict[str, Any] = {
            "type": self.type,
            "in_token_num": self.in_token_num,
            "out_token_num": self.out_token_num,
            "num_features": self.num_features,
            "gate": self.gate,
        }
        if self.type == CONV_SELECTOR:
            content |= {"neck": self.neck, "out_features": self.out_features}
        return content


@dataclass(frozen=True, slots=True)
class ElysiumConfig:
    """All settings of a model.

    Attributes:
        llm: Name or path of the language model's config and tokenizer; may be relative
            to the checkpoint's folder.
        vision: The same for the vision encoder's config.
        adapter: Token adapter.
        projector: Kind of projector; ``mlp2x_gelu`` is the only one published.
        feature_layer: Hidden state of the vision encoder that is used: -2 (the last but one)
            in the published model, -1 for an encoder trained from scratch.
        system_text: System text at the start of every prompt.
        clip_length: Frames of the clips that the model was trained on.
        window: Stream window that suits the model best: ``anchor`` or ``growing``.
        vocabulary: Names that a small model was trained on; empty for a model of free language.
        words: Other words that it was trained on; empty = not known, all are kept (see
            :mod:`elysium_core.prompt.vocabulary`).
        find_scores: Calibration of the scores of boxes found by words.
        name_scores: The same with the picture's evidence for the name; None if the model was not trained to tell it.
        follow_scores: Calibration of the scores of boxes followed in crops.
        crop: Selector that follows an object in crops; None for a model that cannot.
        follow: One of :data:`FOLLOW_MODES`: what suits the model best.
        describe: One of :data:`DESCRIBE_MODES`: what it can describe an object from.
        find: One of :data:`FIND_MODES`: what suits the model best.
    """

    llm: str
    vision: str
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    projector: str = "mlp2x_gelu"
    feature_layer: int = -2
    system_text: str = PUBLISHED_SYSTEM_TEXT
    clip_length: int = 8
    window: str = "growing"
    vocabulary: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    find_scores: ScoreCalibration = UNCALIBRATED
    name_scores: NameCalibration | None = None
    follow_scores: ScoreCalibration = UNCALIBRATED
    crop: CropConfig | None = None
    follow: str = "frame"
    describe: str = "clip"
    find: str = "frame"

    @classmethod
    def from_dict(cls, raw: dict[str, Any], source: str = CONFIG_NAME) -> ElysiumConfig:
        """Read the published layout, or that of this package, which has more keys.

        Raises:
            ModelFileError: It is not the config of an elysium model, lacks a key, or names code
                to run (``MODEL_UNSAFE``).
        """
        if raw.get("auto_map") and raw["auto_map"] != _PUBLISHED_CODE:
            raise ModelFileError(
                f"{source} names code to run (auto_map), which is never run; remove the key",
                code="MODEL_UNSAFE",
            )
        if raw.get("model_type") != "elysium":
            raise ModelFileError(f"{source} has model_type {raw.get('model_type')!r}, not 'elysium'")
        crop = _crop_config(raw.get("crop_config"), source)
        try:
            adapter = raw["adapter_config"]
            extra = raw.get("elysium", {})
            config = cls(
                llm=_text(raw["llm_config"], "pretrained_model_name_or_path"),
                vision=_text(raw["visual_config"], "pretrained_model_name_or_path"),
                adapter=AdapterConfig(
                    type=_text({"type": "t_selector"} | adapter, "type"),
                    in_token_num=int(adapter["in_token_num"]),
                    out_token_num=int(adapter["out_token_num"]),
                    num_features=int(adapter["num_features"]),
                    gate=_text({"gate": "hard"} | adapter, "gate"),
                    neck=int(adapter.get("neck", 96)),
                    out_features=int(adapter.get("out_features", 128)),
                ),
                projector=_text({"type": "mlp2x_gelu"} | raw.get("projector_config", {}), "type"),
                feature_layer=int(extra.get("feature_layer", -2)),
                system_text=_text({"system_text": PUBLISHED_SYSTEM_TEXT} | extra, "system_text"),
                clip_length=int(extra.get("clip_length", 8)),
                window=_text({"window": "growing"} | extra, "window"),
                vocabulary=_names(extra, "vocabulary"),
                words=_names(extra, "words"),
                find_scores=_calibration(extra, "find_scores"),
                name_scores=_name_calibration(extra),
                follow_scores=_calibration(extra, "follow_scores"),
                crop=crop,
                follow=_text({"follow": FOLLOW_MODES[0]} | extra, "follow"),
                describe=_text({"describe": DESCRIBE_MODES[0]} | extra, "describe"),
                find=_text({"find": FIND_MODES[0]} | extra, "find"),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ModelFileError(f"{source} lacks or misspells the setting {error}") from error
        config._check_modes(source)
        config._check_limits(source)
        return config

    def _check_modes(self, source: str) -> None:
        for key, modes in (("follow", FOLLOW_MODES), ("describe", DESCRIBE_MODES), ("find", FIND_MODES)):
            if getattr(self, key) not in modes:
                raise ModelFileError(f"{source}: {key} {getattr(self, key)!r} is not one of {', '.join(modes)}")
        if self.follow == "crop" and self.crop is None:
            raise ModelFileError(f"{source}: follow 'crop' needs a crop_config; add one or set follow to 'frame'")

    def _check_limits(self, source: str) -> None:
        """Refuse what would take memory or time without bounds, or could not be part of a prompt."""
        for name, value, least, most in (
            ("system_text", len(self.system_text), 0, _LONGEST_SYSTEM_TEXT),
            ("clip_length", self.clip_length, 1, _LONGEST_CLIP),
            ("vocabulary", len(self.vocabulary), 0, _MOST_NAMES),
            ("words", len(self.words), 0, _MOST_NAMES),
            ("out_token_num", self.adapter.out_token_num, 1, _MOST_TOKENS),
        ):
            if not least <= value <= most:
                kind = "" if name in ("clip_length", "out_token_num") else "length of "
                raise ModelFileError(f"{source}: {kind}{name} = {value} is not in {least}..{most}")
        if self.window not in WINDOW_MODES:
            raise ModelFileError(f"{source}: window {self.window!r} is not one of {', '.join(WINDOW_MODES)}")
        if self.name_scores is not None and self.name_scores.names > len(self.vocabulary):
            raise ModelFileError(
                f"{source}: name_scores has {self.name_scores.names} names, the vocabulary only {len(self.vocabulary)}"
            )
        for name in (*self.vocabulary, *self.words):
            if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
                raise ModelFileError(
                    f"{source}: {name[:_LONGEST_NAME]!r} is no name; one has 1..{_LONGEST_NAME} printable characters"
                )

    @classmethod
    def from_file(cls, path: Path) -> ElysiumConfig:
        """Read ``config.json``.

        Raises:
            ModelFileError: The file is missing or is not such a config.
        """
        try:
            raw = json.loads(read_settings_text(path))
        except OSError as error:
            raise ModelFileError(f"cannot read {path}: {error.strerror}; is this a model folder?") from error
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{path} is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ModelFileError(f"{path} holds {type(raw).__name__}, not an object of settings")
        return cls.from_dict(raw, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        content: dict[str, Any] = {
            "model_type": "elysium",
            "llm_config": {"pretrained_model_name_or_path": self.llm},
            "visual_config": {"pretrained_model_name_or_path": self.vision},
            "adapter_config": self.adapter.to_dict(),
            "projector_config": {"type": self.projector},
        }
        if self.crop is not None:
            content["crop_config"] = self.crop.to_dict()
        content["elysium"] = {
            "feature_layer": self.feature_layer,
            "system_text": self.system_text,
            "clip_length": self.clip_length,
            "window": self.window,
            "vocabulary": list(self.vocabulary),
            "follow": self.follow,
        }
        for key, modes in (("describe", DESCRIBE_MODES), ("find", FIND_MODES)):
            if getattr(self, key) != modes[0]:
                content["elysium"][key] = getattr(self, key)
        if self.words:
            content["elysium"]["words"] = list(self.words)
        for key in ("find_scores", "follow_scores"):
            calibration: ScoreCalibration = getattr(self, key)
            if calibration != UNCALIBRATED:
                content["elysium"][key] = [calibration.scale, calibration.shift]
        if self.name_scores is not None:
            content["elysium"]["name_scores"] = asdict(self.name_scores)
        return content


def _names(extra: dict[str, Any], key: str) -> tuple[str, ...]:
    names = extra.get(key, [])
    if not isinstance(names, list):
        raise TypeError(f"{key}: it is no list of names")
    return tuple(str(name) for name in names)


def _calibration(extra: dict[str, Any], key: str) -> ScoreCalibration:
    scale, shift = extra.get(key, (1.0, 0.0))
    return ScoreCalibration(float(scale), float(shift))


def _name_calibration(extra: dict[str, Any]) -> NameCalibration | None:
    raw = extra.get("name_scores")
    if raw is None:
        return None
    keys = [item.name for item in fields(NameCalibration)]
    if not isinstance(raw, dict) or set(raw) != set(keys):
        raise ValueError(f"name_scores: it is no object with the keys {', '.join(keys)}")
    return NameCalibration(float(raw["scale"]), float(raw["shift"]), float(raw["evidence_scale"]), int(raw["names"]))


def _crop_config(raw: Any, source: str) -> CropConfig | None:
    if raw is None:
        return None
    try:
        return CropConfig.from_dict(raw)
    except ValueError as error:
        raise ModelFileError(f"{source}: crop_config: {error}") from error


def _text(settings: dict[str, Any], key: str) -> str:
    value = settings[key]
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{key} = {value!r}, which must be text")
    return value
