"""Objects that the tests of the stream follow, and what follows them."""

from __future__ import annotations

import pytest

from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackingConfig


@pytest.fixture
def mug(show):
    """The mug in frame ``k``: it wanders to the right."""
    return lambda k, certainty=95: show.Sight((10 + k % 30, 20, 40 + k % 30, 50), certainty)


@pytest.fixture
def apple(show):
    """The apple in frame ``k``: it sinks."""
    return lambda k, certainty=90: show.Sight((60, 10 + k % 40, 80, 30 + k % 40), certainty)


@pytest.fixture
def bear(show):
    """The teddy bear: it sits."""
    return lambda k, certainty=85: show.Sight((5, 70, 35, 98), certainty)


@pytest.fixture
def tracker(oracle, window_kind):
    """Makes a tracker over a model that knows the truth; both kinds of window."""
    return lambda **settings: StreamTracker(oracle(window_kind), TrackingConfig(**settings))
