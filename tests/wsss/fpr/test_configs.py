"""The settings of the paper's tables and figures, as `camplug train fpr --config` reads them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from camplug.settings import apply_values
from camplug.settings_files import read_settings_file
from camplug.wsss.classifier import LearningSettings
from camplug.wsss.fpr import FPR

CONFIGS = Path(__file__).parents[3] / "configs" / "fpr"
PUBLISHED = {"pass_scales": (1.0, 0.5, 1.5, 2.0), "pass_flip": True}
NOTHING = {"region_contrast": 0.0, "pixel_rectification": 0.0}
CHANGED = {
    "table5_bce": NOTHING,
    "table5_focal": {**NOTHING, "focal": 2.0},
    "table5_rc": {**PUBLISHED, "pixel_rectification": 0.0},
    "table5_rc_pr": PUBLISHED,
    "distance_l2": {**PUBLISHED, "distance": "l2", "offset": 0.0},
    "distance_rms": PUBLISHED,
    **{f"figure7b_k_{k}": {**PUBLISHED, "clusters": k, "negatives": k} for k in (1, 5, 10, 20, 50)},
    **{
        f"figure7a_l1_{one:.2f}_l2_{two}e-5": {**PUBLISHED, "region_contrast": one, "pixel_rectification": two * 1e-5}
        for one in (0.1, 0.12, 0.15, 0.17, 0.2)
        for two in (10, 15, 20)
    },
}


def test_there_are_no_others():
    assert sorted(path.stem for path in CONFIGS.glob("*.toml")) == sorted(CHANGED)


@pytest.mark.parametrize("name", CHANGED)
def test_config(name):
    path = CONFIGS / f"{name}.toml"
    chosen = read_settings_file(path, FPR(), LearningSettings())
    found = {**asdict(apply_values(FPR(), chosen)), **asdict(apply_values(LearningSettings(), chosen))}
    wanted = {**asdict(FPR()), **asdict(LearningSettings()), **CHANGED[name]}
    assert found == {**wanted, "pixel_rectification": pytest.approx(wanted["pixel_rectification"], rel=1e-12)}
    assert set(chosen) >= set(CHANGED[name]) - {"region_contrast", "pixel_rectification"}
    assert path.read_text().startswith("# Chen et al., ICCV 2023, ")


def test_groups_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('clusters = 3\n[groups]\nbeasts = ["cat", "dog"]\nthings = ["cup"]\n')
    fpr = apply_values(FPR(), read_settings_file(path, FPR()))
    assert (fpr.clusters, fpr.groups) == (3, {"beasts": ["cat", "dog"], "things": ["cup"]})
    assert apply_values(FPR(), {"groups": "none"}).groups == "none"
    assert apply_values(FPR(), {"pass_scales": "1,0.5"}).pass_scales == (1.0, 0.5)
