"""The dense CRF of command-line options."""

from __future__ import annotations

import pytest

from camplug.cli.crf_options import CRFNumbers, CRFOptions, make_crf_settings
from camplug.errors import InputError
from camplug.settings import apply_values
from camplug.wsss.crf import PRESETS, CRFSettings, PARSettings


def make(**values):
    return apply_values(CRFOptions(), values).make_settings()


def test_presets_and_numbers():
    assert make() == make(crf="irn") == PRESETS["irn"]
    assert make(crf="none") is None
    given = {"crf": "affinitynet", "crf_gaussian": "2,4", "crf_bilateral": "60,7.5,5", "crf_iterations": "3"}
    assert make(**given) == CRFSettings((2, 4), (60, 7.5, 5), 3)
    assert make(crf="affinitynet", crf_bilateral=[60, 7, 5]) == CRFSettings((3, 3), (60, 7, 5), 10)
    assert all(isinstance(n, int) for n in make(crf="irn", crf_gaussian="2,4").gaussian)
    assert make_crf_settings(CRFSettings((1, 2), (3, 4, 5), 6), CRFNumbers(crf_iterations=7)) == CRFSettings(
        (1, 2), (3, 4, 5), 7
    )
    assert make(crf="par") == PARSettings((1, 2, 4, 8, 12, 24), 10, 0.3, 0.01, 0.5)
    assert make(crf="par", crf_iterations="3") == PARSettings(iterations=3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"crf": "paper"}, r"--crf 'paper'; allowed are irn, affinitynet, deeplab, par and none\."),
        ({"crf": "none", "crf_iterations": 2}, r"--crf-iterations has no effect with --crf none; leave it out\."),
        ({"crf": "irn", "crf_gaussian": "3"}, "crf_gaussian = '3' cannot be read; give 2 numbers"),
        ({"crf": "irn", "crf_bilateral": "3,3"}, "crf_bilateral = '3,3' cannot be read; give 3 numbers"),
        ({"crf": "irn", "crf_bilateral": "0,3,3"}, r"bilateral=\(0, 3, 3\): give \(sxy, srgb, compat\)"),
        ({"crf": "par", "crf_gaussian": "3,3"}, r"--crf-gaussian has no effect with --crf par; leave it out\."),
        ({"crf": "irn", "crf_iterations": -1}, "iterations=-1: give 0 or more"),
    ],
)
def test_numbers_that_are_no_crf(given, says):
    with pytest.raises(InputError, match=says):
        make(**given)
