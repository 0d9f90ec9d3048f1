"""Settings of attention transfer: what is refused, the neck they describe, and those of the paper's tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from camplug.errors import InputError
from camplug.settings import apply_values, find_help, list_settings
from camplug.settings_files import read_settings_file
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import LearningSettings, SpanSettings

NO_FUM = {"fum": False}
CONFIGS = Path(__file__).parents[3] / "configs" / "atm"


def test_the_neck_of_the_options():
    shared = {
        "channel_attention": True,
        "spatial_attention": True,
        "atrous": True,
        "context": True,
        "dilations": [1, 2],
        "width": 7,
        "reduction": 16,
        "most_positions": 4096,
    }
    method = ATM(width=7, dilations=(1, 2))
    assert method.get_neck_settings() == {"kind": "pyramid_fum", **shared, "lateral": 256}
    named = replace(method, stage="8", lateral=64).get_neck_settings()
    assert named == {"kind": "pyramid_fum", **shared, "lateral": 64, "stage": "8"}
    last = {"kind": "fum", **shared, "residual": False, "centred": False}
    assert replace(method, level="last").get_neck_settings() == last
    parts = dict.fromkeys(("channel_attention", "spatial_attention", "atrous", "context"), False)
    assert ATM(fum=False).get_neck_settings() is ATM(**parts).get_neck_settings() is None


@pytest.mark.parametrize(
    "options, words",
    [
        ({"enhanced": (0, 30)}, r"enhanced=\(0, 30\); give alpha, above 0, and beta, in grey levels"),
        ({"decreased": (1, float("nan"))}, r"decreased=\(1, nan\); give alpha"),
        ({"decreased": (1,)}, r"decreased=\(1,\); give alpha"),
        ({"similarity": -1}, "similarity=-1; give a weight of 0 or more"),
        ({"background_similarity": float("inf")}, "background_similarity=inf; give a weight of 0 or more"),
        ({"background": 30}, "background=30; give a value from 0 to 1"),
        ({"sure": -0.1}, "sure=-0.1; give a value from 0 to 1"),
        ({"average": "image"}, "average='image'; allowed are all, present"),
        ({"planes": "foreground"}, "planes='foreground'; allowed are all, background"),
        ({"dilations": (0, 1, 2, 3)}, r"dilations=\(0, 1, 2, 3\); give whole numbers from 1 up: the paper's"),
        ({"dilations": ()}, r"dilations=\(\); give whole numbers"),
        ({"width": 0}, "width=0; give at least 1"),
        ({"reduction": 0}, "reduction=0; give at least 1"),
        ({"most_positions": 0}, "most_positions=0; give at least 1"),
        ({"lateral": 0}, "lateral=0; give at least 1"),
        ({"level": "first"}, "level='first'; allowed are pyramid, last"),
        ({"residual": True}, "residual=True is of the context relation with level='last'"),
        ({"centred": True, "level": "last", "context": False}, "centred=True is of the context relation"),
    ],
)
def test_refused(options, words):
    with pytest.raises(InputError, match=words):
        ATM(**options)


def test_every_option_is_described():
    assert find_help(ATM).keys() >= set(list_settings(ATM()))
    read = apply_values(ATM(), {"dilations": "1,1,2,3", "width": "none", "enhanced": [1.2, 5], "planes": "background"})
    assert read == ATM(dilations=(1, 1, 2, 3), enhanced=(1.2, 5.0), planes="background")


NO_VIEWS = {"enhance": False, "decrease": False}
PARTS = ("channel_attention", "spatial_attention", "atrous", "context")


def only(*parts):
    return ATM(**NO_VIEWS, **{part: part in parts for part in PARTS})


TABLES = {
    "table3_none": ATM(**NO_VIEWS),
    "table3_enhanced": ATM(decrease=False),
    "table3_decreased": ATM(enhance=False),
    "table3_both": ATM(),
    "table4_baseline": ATM(**NO_VIEWS, **NO_FUM),
    "table4_atrous": only("atrous"),
    "table4_context": only("context"),
    "table4_all": only(*PARTS),
    "table6_none": ATM(**NO_VIEWS, **NO_FUM),
    "table6_channel": only("channel_attention"),
    "table6_spatial": only("spatial_attention"),
    "table6_both": only("channel_attention", "spatial_attention"),
    **{
        f"table5_ls{s:g}_lbs{b:g}": ATM(similarity=s, background_similarity=b)
        for s in (0.1, 0.2, 0.5, 1)
        for b in (0.1, 0.2, 0.5, 1)
    },
}


@pytest.mark.parametrize("name", TABLES)
def test_the_settings_of_the_tables(name):
    options = read_settings_file(CONFIGS / f"{name}.toml", SpanSettings(), LearningSettings(), ATM())
    assert apply_values(ATM(), options) == TABLES[name]
    assert all(getattr(ATM(), key) != value for key, value in options.items())


def test_there_are_no_other_settings():
    assert {path.stem for path in CONFIGS.iterdir()} == set(TABLES)
