"""``clip.mode`` paper: results come clip by clip, each with the stamp of its own image."""

import pytest

from elysium_core.errors import ConfigError
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.types import TrackingConfig
from elysium_ros.node.parameters import Settings
from elysium_ros.perception.target_events import EndReason

SECOND = 10**9


class InPairs(IdentityTracker):
    """Answers two frames with the second of them."""

    def __init__(self, config=None):
        super().__init__(config)
        self.held = []
        self.oldest_waiting = None

    def step(self, frame):
        self.held += super().step(frame)
        if len(self.held) < 2 * len(self.target_ids):
            self.oldest_waiting = frame.index
            return []
        updates, self.held, self.oldest_waiting = self.held, [], None
        return updates


class PairModel(IdentityModel):
    def tracker(self, mode="stream", config=None):
        return InPairs(config)


@pytest.fixture
def pairs(make_scene):
    return make_scene(model=PairModel(), config=TrackingConfig(mode="paper"))


def test_results_are_published_in_order_with_their_own_stamps(pairs):
    pairs.start("the mug")
    published = [[job.image.stamp_ns // SECOND for job in pairs.see(stamp * SECOND)] for stamp in range(1, 6)]
    assert published == [[], [1, 2], [], [3, 4], []]
    assert all(job.views[0].update.frame_index == job.frame.index for job in pairs.results)
    assert all(job.views[0].update.stamp_ns == job.image.stamp_ns for job in pairs.results)


def test_a_target_is_seen_in_the_picture_of_its_own_frame(pairs):
    target = pairs.start("the mug")
    pairs.see(SECOND)
    pairs.see(2 * SECOND)
    pairs.see(3 * SECOND)
    assert target.sight.image.stamp_ns == 2 * SECOND


def test_without_targets_every_frame_is_published_at_once(pairs):
    assert [len(pairs.see(stamp * SECOND)) for stamp in (1, 2, 3)] == [1, 1, 1]


def test_a_reset_forgets_the_frames_that_wait(pairs):
    pairs.start("the mug")
    pairs.see(SECOND)
    pairs.perception.reset(EndReason.RESET)
    assert [job.image.stamp_ns for job in pairs.see(2 * SECOND)] == [2 * SECOND]


def test_the_parameter_chooses_the_mode():
    assert Settings.from_values({}).tracking_config().mode == "stream"
    assert Settings.from_values({"clip.mode": "paper"}).tracking_config() == TrackingConfig(mode="paper")
    for wrong in ({"clip.mode": "film"}, {"clip.mode": "paper", "tracking.zoom": True}):
        with pytest.raises(ConfigError) as caught:
            Settings.from_values(wrong)
        assert "clip.mode" in str(caught.value)
