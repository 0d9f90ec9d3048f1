"""Numbers on the command line: lists with commas, none, and those of a dense CRF."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from camplug.cli.crf_options import read_crf
from camplug.cli.fields import allowed, changed, option_group
from camplug.cli.numbers import read_colour, read_numbers
from camplug.errors import InputError
from camplug.wsss.crf import PRESETS, CRFSettings


@pytest.mark.parametrize("given", ["0.5,1,2", "0.5 1 2", "0.5, 1, 2", [0.5, 1, 2], (0.5, "1", 2)])
def test_lists(given):
    assert read_numbers("scales", given) == (0.5, 1.0, 2.0)
    assert read_numbers("scales", given, (1, 3)) == (0.5, 1.0, 2.0)
    with pytest.raises(InputError, match=r"^scales = .* cannot be read; give 2 numbers separated by commas\.$"):
        read_numbers("scales", given, (2,))


@pytest.mark.parametrize("given", ["", "a,b", "1,,b", [], [True, 1], {}, [[1]]])
def test_what_is_no_list(given):
    with pytest.raises(InputError, match="cannot be read; give numbers separated by commas"):
        read_numbers("scales", given)


def test_colours():
    assert read_colour("mean", None) is None
    assert read_colour("mean", "0.5") == read_colour("mean", 0.5) == (0.5, 0.5, 0.5)
    assert read_colour("mean", "0.485,0.456,0.406") == (0.485, 0.456, 0.406)
    with pytest.raises(InputError, match="give 1 or 3 numbers separated by commas"):
        read_colour("mean", "0.5,0.5")


def test_the_numbers_of_a_crf():
    assert read_crf({"crf": "irn"}) == PRESETS["irn"]
    assert read_crf({"crf": "none"}) is None
    given = {"crf": "affinitynet", "crf_gaussian": "2,4", "crf_bilateral": "60,7.5,5", "crf_iterations": 3}
    assert read_crf(given) == CRFSettings((2, 4), (60, 7.5, 5), 3)
    assert read_crf({"crf": "affinitynet", "crf_bilateral": [60, 7, 5]}) == CRFSettings((3, 3), (60, 7, 5), 10)
    assert all(isinstance(n, int) for n in read_crf({"crf": "irn", "crf_gaussian": "2,4"}).gaussian)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"crf": "paper"}, r"--crf 'paper'; allowed are irn, affinitynet, deeplab and none\."),
        ({"crf": "none", "crf_iterations": 2}, r"--crf-iterations has no effect with --crf none; leave it out\."),
        ({"crf": "irn", "crf_gaussian": "3"}, "crf_gaussian = '3' cannot be read; give 2 numbers"),
        ({"crf": "irn", "crf_bilateral": "3,3"}, "crf_bilateral = '3,3' cannot be read; give 3 numbers"),
        ({"crf": "irn", "crf_bilateral": "0,3,3"}, r"bilateral=\(0, 3, 3\): give \(sxy, srgb, compat\)"),
        ({"crf": "irn", "crf_iterations": -1}, "iterations=-1: give 0 or more"),
    ],
)
def test_numbers_that_are_no_crf(given, says):
    with pytest.raises(InputError, match=says):
        read_crf(given)


@dataclass(frozen=True)
class Settings:
    stride: int | None = 16
    width: int = 3


def test_none_is_a_value_where_it_is_allowed():
    hints = option_group(Settings).__annotations__
    assert hints["stride"].__args__[0] == str | None
    assert hints["width"].__args__[0] == int | None
    assert set(allowed(Settings)["stride"]) == {int, str}
    assert changed(Settings(), {"stride": "none"}) == Settings(None)
    assert changed(Settings(), {"stride": "8"}) == Settings(8)
    with pytest.raises(InputError, match=r"stride = 'x' cannot be read; give a whole number or none\."):
        changed(Settings(), {"stride": "x"})
