import pytest


@pytest.fixture(scope="module")
def arguments():
    return ("depth", "--views", 1, "--seed", 4)


def test_errors_are_reported_for_every_scene_beside_those_of_simple_estimates(bench, arguments):
    outcome = bench(*arguments, "--json")
    assert outcome.code == 0
    (report,) = outcome.lines
    assert report["boxes"] == 3
    ball = report["scenes"]["ball, wall far behind"]
    assert ball["has_position"] == 1
    assert ball["depth"][0] < 0.05 < ball["mean"][0]
    glass = report["scenes"]["ball of glass, all holes"]
    assert (glass["has_position"], glass["depth"]) == (0, None)
    assert "ball behind a pole" in report["scenes"]
