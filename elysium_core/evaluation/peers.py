"""Models of other projects by name, in the same harness as ours."""

from __future__ import annotations

from elysium_core.types import PerceptionModel

_OPENCV, _HF = "opencv:", "hf:"


def is_peer(name: str) -> bool:
    """Tell whether a model name as on the command line means a model of another project."""
    return name.startswith((_OPENCV, _HF))


def load_peer(name: str, device: str = "auto") -> PerceptionModel | None:
    """Load ``opencv:NAME`` or ``hf:ID``; None if ``name`` is one of ours.

    Args:
        name: As on the command line.
        device: Where a hub model runs.

    Raises:
        BackendError: It cannot track or ground, or is not part of what is installed.
        ModelFileError: A hub model is not on this disk.
    """
    if name.startswith(_OPENCV):
        from elysium_core.evaluation.peers_opencv import OpenCvModel

        return OpenCvModel(name.removeprefix(_OPENCV))
    if name.startswith(_HF):
        # transformers takes seconds to import; only these models need it here.
        from elysium_core.evaluation.peers_hf import HfModel

        return HfModel(name.removeprefix(_HF), device)
    return None
