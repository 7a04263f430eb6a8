from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import ConfigError
from elysium_core.settings import DEFAULTS, RANGES, TrackingConfig


def test_the_defaults_are_allowed():
    assert TrackingConfig() == TrackingConfig(**DEFAULTS)


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_each_range_are_allowed_and_no_more(name):
    low, high = RANGES[name]
    for value in (low, high):
        assert getattr(TrackingConfig(**{name: value}), name) == value
    unset = [] if DEFAULTS[name] is None else [None]  # None = what suits the model
    for value in (low - 1, high + 1, math.nan, math.inf, -math.inf, 10**400, "3", True, *unset):
        with pytest.raises(ConfigError, match=name):
            TrackingConfig(**{name: value})


@pytest.mark.parametrize("name", [name for name, default in DEFAULTS.items() if type(default) is int])
def test_counts_are_whole_numbers(name):
    with pytest.raises(ConfigError, match="whole number"):
        TrackingConfig(**{name: RANGES[name][0] + 0.5})


@given(st.text() | st.integers() | st.none(), st.text() | st.none())
def test_unknown_words_are_refused_all_at_once(mode, window):
    with pytest.raises(ConfigError) as error:
        TrackingConfig(mode=mode, window=window, max_targets=0)
    message = str(error.value)
    assert "mode" in message
    assert "window" in message
    assert "max_targets" in message
