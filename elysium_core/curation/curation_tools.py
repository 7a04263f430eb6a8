"""The tools of a curation worker: parser, detector and tracker."""

from __future__ import annotations

from dataclasses import dataclass

from elysium_core.curation.box_followers import BoxFollower, load_follower
from elysium_core.curation.chunk_detectors import PLUGIN, ChunkDetector, load_detector, make_plugin
from elysium_core.curation.noun_chunks import ChunkParser, SpacyParser

SPACY = "spacy"
"""Name of the parser of captions that is not a plugin."""


@dataclass(frozen=True, slots=True)
class ToolNames:
    """The tools of a run by their names on the command line, so that every worker can load them.

    Attributes:
        detector: See :func:`~elysium_core.curation.chunk_detectors.load_detector`.
        tracker: See :func:`~elysium_core.curation.box_followers.load_follower`.
        parser: ``spacy``, or ``plugin:module:function``.
        device: For models of torch.
    """

    detector: str
    tracker: str
    parser: str = SPACY
    device: str = "auto"

    def load(self) -> Tools:
        """Load the tools.

        Raises:
            ElysiumError: One of them cannot be loaded.
        """
        parser: ChunkParser = make_plugin(self.parser) if self.parser.startswith(PLUGIN) else SpacyParser()
        return Tools(parser, load_detector(self.detector, self.device), load_follower(self.tracker, self.device))


@dataclass(frozen=True, slots=True)
class Tools:
    """The loaded tools of a worker.

    Attributes:
        parser: Finds noun chunks.
        detector: Finds them in frames.
        tracker: Follows the boxes.
    """

    parser: ChunkParser
    detector: ChunkDetector
    tracker: BoxFollower
