"""A stage from elsewhere: one class and one registration bring its section, results, plan, report and resumption."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from recipes import Heard, tiny
from scipy import ndimage

from camplug.errors import InputError
from camplug.wsss.pseudo import make_walked_seeds
from camplug.wsss.recipe import Stage, StageKind, list_stages, make_recipe, plan_recipe, register_stage, run_recipe
from camplug.wsss.recipe.stages import ImageStage, get_stage, list_kinds, unregister_stage
from camplug.wsss.seeds import SeedFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@dataclass(frozen=True)
class SmoothSettings:
    sigma: float = 0.0


class Smooth:
    def __init__(self, sigma):
        self.sigma = sigma

    def maps(self, photo, maps):
        return np.stack([ndimage.gaussian_filter(m, self.sigma) for m in maps]) if len(maps) else maps


class SmoothStage(ImageStage):
    name = "smooth"
    inputs: ClassVar = {"maps": ("maps",)}
    output = "maps"
    section = "smooth"
    settings_type = SmoothSettings
    panel = "smooth maps"

    def add_stages(self, graph):
        sigma = graph.recipe.others["smooth"].sigma
        for part, source in graph.maps.items() if sigma else ():
            graph.maps[part] = graph.add(Stage(f"smooth {part}", self.name, {"sigma": sigma}, {"maps": source}, part))

    def prepare(self, stage, context):
        folder = context.prepare_folder(stage, SeedFolder, stage.settings)
        source = SeedFolder(context.get_input(stage, "maps"))
        return partial(make_walked_seeds, Smooth(stage.settings["sigma"]), context.view(stage), source, folder)


@pytest.fixture
def registered():
    register_stage(SmoothStage(), after="seeds")
    yield
    unregister_stage("smooth")


def sections(**smooth):
    recipe = tiny(refine=None, deeplab=None, pseudo_labels={"threshold": 0.3}, evaluate={"products_on": ["train"]})
    return {**dict(recipe.text), "smooth": smooth}


def names(recipe):
    return [stage.name for stage in list_stages(recipe, {name: part.open() for name, part in recipe.data.items()})]


def test_it_takes_its_place(registered):
    assert [kind.name for kind in list_kinds()][:3] == ["classifier", "seeds", "smooth"]
    wanted = ["classifier", "seeds train", "evaluate seeds train", "labels train", "evaluate labels train"]
    assert names(make_recipe(sections())) == wanted
    found = names(make_recipe(sections(sigma=2)))
    assert found == [*wanted[:3], "smooth train", *wanted[3:]]
    with pytest.raises(InputError, match=r"smooth\.sigma = 'much' cannot be read; give a number"):
        make_recipe(sections(sigma="much"))
    with pytest.raises(InputError, match=r"smooth\.sigm: there is no such setting; did you mean 'sigma'"):
        make_recipe(sections(sigm=1))


def test_it_is_planned_run_kept_and_shown(registered, tmp_path):
    recipe = make_recipe(sections(sigma=2.0))
    row = {row.stage: row for row in plan_recipe(recipe, tmp_path)}["smooth train"]
    assert (row.state, row.images) == ("to run", 8)
    assert min(row.seconds, row.bytes, row.memory) > 0
    report = run_recipe(recipe, tmp_path)
    before, after = (SeedFolder(next((tmp_path / "cache").glob(f"{n}-train-*"))) for n in ("seeds", "smooth"))
    compared = 0
    for name in recipe.data["train"].open().ids:
        one, other = before.load(name), after.load(name)
        for k, m in enumerate(one.to_full_size()):
            wanted = ndimage.gaussian_filter(m, 2.0)
            assert np.abs(other.maps[k] / 255 - wanted).max() < 1 / 255
            compared += 1
    assert compared > 4
    titles = [panel["title"] for panel in report["pictures"][0]["panels"]]
    assert titles == ["photo", "seeds", "smooth maps", "pseudo-labels", "truth"]
    watch = Heard()
    run_recipe(make_recipe(sections(sigma=3)), tmp_path, watch=watch)
    assert watch.ran == ["smooth train", "labels train", "evaluate labels train"]


def test_registrations_that_do_not_fit(registered):
    class Second(SmoothStage):
        pass

    register_stage(SmoothStage())  # the same class, of a module that is imported again
    with pytest.raises(InputError, match="a stage 'smooth' cannot be registered: 'smooth' has its name or section"):
        register_stage(Second())
    with pytest.raises(InputError, match="there is no stage 'walk'; registered are classifier, seeds, smooth"):
        get_stage("walk")

    class Other(SmoothStage):
        name = "other"
        section = None

    with pytest.raises(InputError, match="there is no stage 'walk'"):
        register_stage(Other(), after="walk")
    assert "other" not in [kind.name for kind in list_kinds()]


def test_inputs_are_checked(registered):
    class Wrong(SmoothStage):
        name = "wrong"
        section = None
        inputs: ClassVar = {"maps": ("labels",)}

        def add_stages(self, graph):
            graph.add(Stage("wrong train", "wrong", {}, {"maps": graph.maps["train"]}, "train"))

    register_stage(Wrong(), after="seeds")
    try:
        with pytest.raises(ValueError, match="the stage 'wrong train' takes maps of 'seeds train' as 'maps'"):
            names(make_recipe(sections()))
    finally:
        unregister_stage("wrong")
    assert isinstance(get_stage("smooth"), StageKind)
