"""What the middleware tells a camera's input."""

import pytest

from elysium_ros.node.camera_input import signed


@pytest.mark.parametrize(("told", "meant"), [(0, 0), (3, 3), (2**64 - 1, -1), (2**64 - 7, -7), (2**63 - 1, 2**63 - 1)])
def test_changes_of_counts_come_without_a_sign(told, meant):
    assert signed(told) == meant
