"""`camplug average-seeds`: the library's averages, usable as seeds, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import good, refused
from heads import random_seeds

from camplug.wsss.data import Scenes
from camplug.wsss.seeds import SeedFolder, average_seed_maps

SCENES = Scenes(3)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with two folders of seeds."""
    monkeypatch.chdir(tmp_path)
    random_seeds(tmp_path / "one", SCENES)
    random_seeds(tmp_path / "two", SCENES, seed=1)
    return tmp_path


def test_averages_are_seeds(place):
    weighted = ("--weights", "1,3", "--dtype", "float16", "--json")
    said = json.loads(good("average-seeds", "one", "two", "--data", "scenes:3", *weighted).stdout)
    assert (said["made"], said["folder"]) == (3, "averaged_seeds")
    one, two, found = (SeedFolder(place / n).load(SCENES.ids[0]) for n in ("one", "two", "averaged_seeds"))
    expected = average_seed_maps([one.to_full_size(), two.to_full_size()], [1, 3])
    np.testing.assert_allclose(found.to_full_size(), expected, atol=2**-11)
    good("pseudo-labels", "averaged_seeds", "--data", "scenes:3", "--threshold", "0.5", "--crf", "none")
    assert len(list((place / "labels").glob("*.png"))) == 3


def test_what_is_refused():
    assert "--out 'one' is one of the folders" in refused(
        "average-seeds", "one", "two", "--data", "scenes:3", "-o", "one"
    )
    assert "weights=1 of 2 sources; give one number above 0" in refused(
        "average-seeds", "one", "two", "--data", "scenes:3", "--weights", "1"
    )
    assert "there is no folder 'three'" in refused("average-seeds", "one", "three", "--data", "scenes:3")
