"""`long_side` of walked maps and of pseudo-labels: what it makes, and which stages it changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes import Heard, tiny

from camplug.errors import InputError
from camplug.wsss.data.masks import read_mask
from camplug.wsss.recipe import list_stages, make_recipe, run_recipe
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.seeds import SeedFolder

SHORT = {"pseudo_labels": {"threshold": 0.3, "crf": "none"}, "evaluate": {"products_on": ["train"]}, "deeplab": None}


def keys(recipe):
    data = {name: part.open() for name, part in recipe.data.items()}
    cache = Cache(Path(), data)
    return {stage.name: (cache.get_key(stage), stage.settings) for stage in list_stages(recipe, data)}


@pytest.mark.parametrize(("section", "kind"), [("refine", "maps"), ("pseudo_labels", "labels")])
def test_it_changes_its_own_stages_and_those_behind(section, kind):
    before, after = keys(tiny()), keys(tiny(**{section: {"long_side": 32}}))
    changed = [name for name in before if before[name][0] != after[name][0]]
    names = list(before)
    assert changed == names[names.index(f"{kind} train") :]
    own = [name for name in names if name.startswith(f"{kind} ")]
    assert all(after[name][1]["long_side"] == 32 for name in own)
    assert not any("long_side" in before[name][1] for name in own)  # unchanged recipes keep their results


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_maps_and_labels_are_made_at_that_size(tmp_path):
    recipe = tiny(refine={"long_side": 32}, **{**SHORT, "pseudo_labels": SHORT["pseudo_labels"] | {"long_side": 16}})
    run_recipe(recipe, tmp_path)
    data = recipe.data["train"].open()
    seeds = SeedFolder(next((tmp_path / "cache").glob("maps-train-*")))
    labels = next((tmp_path / "cache").glob("labels-train-*"))
    shown = 0
    for name in data.ids:
        seed = seeds.load(name)
        assert (seed.maps.shape[1:], seed.size) == ((24, 32), (48, 64))
        scores = seed.resize((12, 16))
        small = np.zeros((12, 16), np.uint8)
        if len(scores):
            values = np.array([c + 1 for c in seed.classes], np.uint8)[scores.argmax(0)]
            small = np.where(scores.max(0) > 0.3, values, 0).astype(np.uint8)
        wanted = np.asarray(Image.fromarray(small).resize((64, 48), Image.Resampling.NEAREST))
        assert (read_mask(labels / f"{name}.png", 3) == wanted).all()
        shown += wanted.any()
    assert shown > 2
    watch = Heard()
    run_recipe(recipe, tmp_path, watch=watch)
    assert watch.ran == []


@pytest.mark.parametrize("section", ["refine", "pseudo_labels"])
def test_a_side_that_is_none_is_refused(section):
    with pytest.raises(InputError, match=f"{section}: long_side=0; give at least 1 pixel"):
        tiny(**{section: {"long_side": 0}})


def test_it_has_no_effect_without_a_walk():
    with pytest.raises(InputError, match=r"refine\.long_side has no effect with kind: none"):
        make_recipe({**dict(tiny().text), "refine": {"kind": "none", "long_side": 8}})
