"""Progress of runs: one line that is rewritten on a terminal, lines per stage and minute elsewhere."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from camplug.cli import common
from camplug.cli.run_display import RunDisplay


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def printed(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(common, "out", Console(file=text, highlight=False))
    return text


def run(display, clock):
    """Two stages, of which the second takes twice its estimate."""
    with display.run({"seeds": 120.0, "deeplab": 600.0}):
        with display.stage("seeds", 1, 3), display.steps("seeds", 2) as step:
            for _ in range(2):
                clock.now += 60
                step()
        with display.stage("deeplab", 3, 3):
            with display.steps("labels", 2) as step:
                step()
                step()
            with display.steps("training", 10) as step:
                for _ in range(10):
                    clock.now += 120
                    step()


def test_a_log_has_a_line_per_stage_and_minute(printed):
    clock = Clock()
    run(RunDisplay(False, Console(file=io.StringIO()), clock), clock)
    lines = printed.getvalue().splitlines()
    assert lines[:4] == [
        "[1/3] seeds ... about 12 min left",
        "[1/3] seeds: 1/2, about 11 min left",
        "[1/3] seeds: 2/2, about 10 min left",
        "[3/3] deeplab ... about 10 min left",
    ]
    # half of 600 s is left and (120 + 600 + 36) / (120 + 300 + 36) = 1.66 s are spent per estimated second: 497 s
    assert lines[8] == "[3/3] deeplab: 5/10, about 9 min left"
    assert lines[-1] == "[3/3] deeplab: 10/10, less than a minute left"
    assert len(lines) == 14


def test_quick_steps_are_no_lines(printed):
    display = RunDisplay(False, Console(file=io.StringIO()), Clock())
    with display.run({"seeds": None}), display.stage("seeds", 1, 1), display.steps("seeds", 50) as step:
        for _ in range(50):
            step()
    assert printed.getvalue() == "[1/1] seeds ...\n"


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_has_one_line(printed, width):
    clock, terminal = Clock(), io.StringIO()
    console = Console(file=terminal, width=width, force_terminal=True, color_system=None)
    display = RunDisplay(False, console, clock)
    with display.run({"evaluate predictions crf val": 1200.0}):
        with display.stage("evaluate predictions crf val", 23, 23):
            with display.steps("evaluate predictions crf val", 150000) as step:
                clock.now = 0.008
                step()
                display.live.refresh()
        assert "23/23" in printed.getvalue()
    shown = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", terminal.getvalue()))
    (line,) = {line.rstrip() for line in shown if "1/150000" in line}
    assert re.fullmatch(r"\[23/23\] evaluate predictions .* +1/150000 about 20 min left", line)
    assert len(line) <= width
    assert printed.getvalue() == "[23/23] evaluate predictions crf val: 0.0 s\n"


def test_a_silent_one(printed):
    clock, terminal = Clock(), io.StringIO()
    run(RunDisplay(True, Console(file=terminal, force_terminal=True), clock), clock)
    assert printed.getvalue() == terminal.getvalue() == ""
