from __future__ import annotations

import json

import pytest

from elysium_core.errors import ConfigError
from elysium_core.geometry import Box
from elysium_core.types import LoadOptions, TrackState, TrackUpdate


def test_a_track_line_is_the_contract():
    update = TrackUpdate("1", 7, Box(0.1, 0.2, 0.5, 0.6), 0.97, TrackState.TRACKED, stamp_ns=3)
    assert json.loads(json.dumps(update.as_json(200, 100))) == {
        "frame": 7,
        "stamp_ns": 3,
        "target": "1",
        "box": [0.1, 0.2, 0.5, 0.6],
        "box_px": [20.0, 20.0, 100.0, 60.0],
        "score": 0.97,
        "state": "TRACKED",
    }


@pytest.mark.parametrize("state", [TrackState.LOST, TrackState.REMOVED])
def test_no_box_is_null_and_never_the_last_box(state):
    line = TrackUpdate("1", 0, None, 0.0, state, last_box=Box(0, 0, 1, 1)).as_json(200, 100)
    assert line["box"] is None
    assert line["box_px"] is None
    assert line["state"] == state.value


def test_other_names_of_an_option_are_taken():
    load = LoadOptions().with_options(precision="float16", backend="torch", quantize="nf4")
    assert (load.dtype, load.vision_backend, load.quantization) == ("float16", "torch", "nf4")


def test_an_option_given_twice_is_refused_unless_both_say_the_same():
    assert LoadOptions().with_options(dtype="float16", precision="float16").dtype == "float16"
    with pytest.raises(ConfigError, match="dtype"):
        LoadOptions().with_options(dtype="float16", precision="float32")
