"""One tracker node with a model that stands still, in a process of its own, for all tests of this folder."""

import pytest


@pytest.fixture(scope="package")
def test_node(harness):
    with harness.node() as node:
        yield node


@pytest.fixture(scope="package")
def start_tracker(test_node, harness):
    with harness.trackers(test_node) as start:
        yield start


@pytest.fixture(scope="package")
def running(start_tracker):
    tester = start_tracker()
    tester.wait_active()
    return tester


@pytest.fixture
def tracker(running):
    """The node without targets and with one image; whatever a test does, the next one finds it so."""
    running.process.check_alive()
    running.client.pause(False)
    running.client.reset()
    running.see()
    return running
