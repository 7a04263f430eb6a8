"""Detectors that find what a noun chunk names: open-vocabulary detectors of transformers, or one of your own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elysium_core.curation.curation_rules import Detection
from elysium_core.errors import ConfigError, missing_package

DEFAULT_DETECTOR = "IDEA-Research/grounding-dino-base"
"""Hub id of the detector of the paper."""

PLUGIN = "plugin:"
"""Prefix of what is imported: ``plugin:package.module:function``, a function without arguments."""


class ChunkDetector(Protocol):
    """Finds things by words in pictures."""

    @property
    def name(self) -> str:
        """Name, for the record of a run."""
        ...

    def find(self, image: NDArray[np.uint8], expressions: Sequence[str]) -> list[list[Detection]]:
        """Return the detections of each expression in an RGB uint8 image (H, W, 3), in the order of the expressions."""
        ...


class TransformersDetector:
    """An open-vocabulary detector of transformers, from disk; see ``OpenVocabulary`` of the photo teachers.

    Args:
        name: A folder, or the id of a model that was pulled.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        least_score: Boxes with a lower score are left out, 0..1.

    Raises:
        ModelFileError: The model is not there or cannot be loaded.
        BackendError: It is no such detector, or there is no such device.
    """

    def __init__(self, name: str = DEFAULT_DETECTOR, device: str = "auto", least_score: float = 0.3) -> None:
        # torch takes seconds to import, and a detector of your own may not need it.
        from elysium_core.data.photos.teacher_detectors import OpenVocabulary
        from elysium_core.device import resolve_device

        self.name = name
        self._network = OpenVocabulary(name, least_score, str(resolve_device(device)))

    def find(self, image: NDArray[np.uint8], expressions: Sequence[str]) -> list[list[Detection]]:
        """Return the detections of each expression in an RGB uint8 image (H, W, 3), in the order of the expressions."""
        found: dict[str, list[Detection]] = {expression: [] for expression in expressions}
        if found:
            for thing in self._network.find(image, list(found)):
                found[thing.name].append(Detection(thing.box, thing.score))
        return [found[expression] for expression in expressions]


def load_detector(spec: str = DEFAULT_DETECTOR, device: str = "auto") -> ChunkDetector:
    """Load a detector by its name on the command line.

    Args:
        spec: A folder or hub id of transformers, or ``plugin:module:function``.
        device: For a model of transformers.

    Raises:
        ConfigError: There is no such plugin.
        ModelFileError: The model is not there or cannot be loaded.
        BackendError: It is no open-vocabulary detector.
    """
    if spec.startswith(PLUGIN):
        detector: ChunkDetector = make_plugin(spec)
        return detector
    return TransformersDetector(spec, device)


def make_plugin(spec: str) -> Any:
    """Import ``plugin:module:function`` and return what the function returns.

    Raises:
        ConfigError: The module, or the function in it, is not there.
    """
    module_name, _, function = spec.removeprefix(PLUGIN).partition(":")
    if not module_name or not function:
        raise ConfigError(f"plugin {spec!r} is not of the form plugin:module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise ConfigError(f"plugin {spec!r} cannot be imported: {missing_package(error)}") from error
        raise ConfigError(f"plugin {spec!r}: Python finds no module {module_name!r}; set PYTHONPATH") from error
    make: Callable[[], Any] | None = getattr(module, function, None)
    if not callable(make):
        raise ConfigError(f"plugin {spec!r}: the module has no function {function!r}")
    return make()
