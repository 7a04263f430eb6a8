"""The settings of a model, as stored in its ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysium_core.errors import ModelFileError

CONFIG_NAME = "config.json"
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
    """

    type: str = "t_selector"
    in_token_num: int = 576
    out_token_num: int = 108
    num_features: int = 1024
    gate: str = "hard"


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
        try:
            adapter = raw["adapter_config"]
            extra = raw.get("elysium", {})
            return cls(
                llm=_text(raw["llm_config"], "pretrained_model_name_or_path"),
                vision=_text(raw["visual_config"], "pretrained_model_name_or_path"),
                adapter=AdapterConfig(
                    type=_text({"type": "t_selector"} | adapter, "type"),
                    in_token_num=int(adapter["in_token_num"]),
                    out_token_num=int(adapter["out_token_num"]),
                    num_features=int(adapter["num_features"]),
                    gate=_text({"gate": "hard"} | adapter, "gate"),
                ),
                projector=_text({"type": "mlp2x_gelu"} | raw.get("projector_config", {}), "type"),
                feature_layer=int(extra.get("feature_layer", -2)),
                system_text=_text({"system_text": PUBLISHED_SYSTEM_TEXT} | extra, "system_text"),
                clip_length=int(extra.get("clip_length", 8)),
                window=_text({"window": "growing"} | extra, "window"),
                vocabulary=tuple(str(name) for name in extra.get("vocabulary", ())),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ModelFileError(f"{source} lacks or misspells the setting {error}") from error

    @classmethod
    def from_file(cls, path: Path) -> ElysiumConfig:
        """Read ``config.json``.

        Raises:
            ModelFileError: The file is missing or is not such a config.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelFileError(f"cannot read {path}: {error.strerror}; is this a model folder?") from error
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{path} is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ModelFileError(f"{path} holds {type(raw).__name__}, not an object of settings")
        return cls.from_dict(raw, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        return {
            "model_type": "elysium",
            "llm_config": {"pretrained_model_name_or_path": self.llm},
            "visual_config": {"pretrained_model_name_or_path": self.vision},
            "adapter_config": {
                "type": self.adapter.type,
                "in_token_num": self.adapter.in_token_num,
                "out_token_num": self.adapter.out_token_num,
                "num_features": self.adapter.num_features,
                "gate": self.adapter.gate,
            },
            "projector_config": {"type": self.projector},
            "elysium": {
                "feature_layer": self.feature_layer,
                "system_text": self.system_text,
                "clip_length": self.clip_length,
                "window": self.window,
                "vocabulary": list(self.vocabulary),
            },
        }


def _text(settings: dict[str, Any], key: str) -> str:
    value = settings[key]
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{key} = {value!r}, which must be text")
    return value
