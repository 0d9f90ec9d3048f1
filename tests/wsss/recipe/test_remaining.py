"""Remaining time of a run: estimates, corrected by the time that work takes."""

from __future__ import annotations

import pytest

from camplug.wsss.recipe.remaining import RemainingTime


@pytest.fixture
def clock():
    now = [0.0]
    return now


def make(clock, **estimates):
    return RemainingTime(estimates, lambda: clock[0])


def test_estimates_that_are_right_come_true(clock):
    left = make(clock, seeds=100.0, deeplab=300.0)
    assert left.estimate() == 400
    left.begin("seeds")
    clock[0], left.share = 50.0, 0.5
    assert left.estimate() == pytest.approx(350)
    assert left.done == pytest.approx(50 / 400)
    clock[0] = 100.0
    left.end()
    left.begin("deeplab")
    assert left.estimate() == pytest.approx(300)
    clock[0] = 400.0
    left.end()
    assert (left.estimate(), left.done) == (0, 1)


def test_finished_stages_correct_the_others(clock):
    left = make(clock, seeds=100.0, deeplab=300.0)
    left.begin("seeds")
    clock[0] = 200.0  # twice the estimate
    left.end()
    assert left.estimate() == pytest.approx(300 * (200 + 20) / (100 + 20))  # 550, between 300 and 600
    left.begin("deeplab")
    clock[0], left.share = 500.0, 0.5
    assert left.estimate() == pytest.approx(150 * (500 + 20) / (250 + 20))


def test_stages_without_an_estimate(clock):
    left = make(clock, seeds=None, deeplab=1200.0)
    assert str(left) == "more than 20 min left"
    left.begin("seeds")
    clock[0], left.share = 999.0, 0.5
    assert left.estimate() == 1200  # the time of unknown work corrects nothing
    left.end()
    assert str(left) == "about 20 min left"
    unknown = make(clock, seeds=None)
    assert (unknown.estimate(), unknown.done, str(unknown)) == (None, 0, "")


@pytest.mark.parametrize(
    "seconds, text",
    [(59.0, "less than a minute left"), (61.0, "about 2 min left"), (3600.0, "about 1.0 h left")],
)
def test_words(clock, seconds, text):
    assert str(make(clock, seeds=seconds)) == text
