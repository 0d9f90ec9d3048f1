"""Extensions: entry points, "import:" names, registering again, and the checks for explainers of one's own."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import registries
import torch
from commands import good, refused, run
from PIL import Image
from recipes import NET, tiny

import camplug
from camplug import plugins, testing
from camplug.errors import InputError, ModelError
from camplug.explain import registry
from camplug.models import register_host
from camplug.trust.registry import find_metrics
from camplug.wsss.classifier import Method, get_training, method, register_training
from camplug.wsss.data import Scenes, open_data, register_data
from camplug.wsss.recipe import Walk, list_stages, make_recipe, register_walk, run_recipe
from camplug.wsss.seeds import SeedFolder

OWN = '''
import camplug
import camplug.testing
import camplug.trust
from dataclasses import dataclass
from camplug.wsss.classifier import ClassifierTraining, Method
from camplug.wsss.data import Scenes
from camplug.wsss.recipe import Walk

class Half(camplug.LayerExplainer):
    def layer_map(self, activation, gradient):
        return (activation * gradient).sum(1).clamp_min(0)

class Twice(camplug.Wrapper):
    def run(self, x, classes, size=None, inputs=None):
        return self.explainer.run(x, classes, size, inputs=inputs)

class SofterTraining(ClassifierTraining):
    def compute_losses(self, x, batch, step):
        return {**super().compute_losses(x, batch, step), "much": (1.0, x.new_tensor(self.much))}

@dataclass(frozen=True)
class Softer(Method):
    """Training with a constant.

    Args:
        much: the constant.
    """

    name = "softer"
    much: float = 0.5

    def make_module(self, network, learning, crops):
        module = SofterTraining(network, learning, ids=crops.data.ids, seed=crops.seed)
        module.much = self.much
        return module

@dataclass(frozen=True)
class PowerSettings:
    power: float = 2.0

class Power:
    def __init__(self, network, power):
        if power <= 0:
            raise camplug.InputError(f"power={power}; give a number above 0.")
        self.power = power

    def maps(self, photo, maps):
        return maps**self.power

POWER = Walk(settings=PowerSettings, crf="none", threshold=0.25, make=Power)

def open_few(split=None, count=3):
    return Scenes(int(count))

def build_small(name, pretrained, num_classes):
    return camplug.testing.make_network()

def compute_mean(trial):
    return trial.maps.mean((-2, -1))

MEAN = camplug.trust.Metric("mean", "lower", compute_mean)

number = 7
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the working directory, and registries that forget it."""
    (tmp_path / "camplug_test_own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    registries.isolate(monkeypatch)
    monkeypatch.setattr(plugins, "_is_loaded", True)
    yield "import:camplug_test_own"
    sys.modules.pop("camplug_test_own", None)


def test_a_class_is_used_by_its_place(own):
    model, x = testing.make_network(), testing.make_images()
    explainer = camplug.create(f"{own}:Half", model, layers="body.4")
    assert explainer.name == "half"
    torch.testing.assert_close(explainer.maps(x, 1), camplug.HiResCAM(model, "body.4").maps(x, 1))
    wrapped = camplug.create(f"MultiView({own}:Twice({own}:Half(layers='body.4')), scales=(1,), flip=False)", model)
    torch.testing.assert_close(wrapped.maps(x, 1), explainer.maps(x, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("number", r"'import:camplug_test_own:number' is 7; give a class derived from camplug.Explainer"),
        ("Nothing", r"could not be imported \(AttributeError: .*Nothing"),
        ("Twice", r"wraps an explainer"),
    ],
)
def test_what_is_no_explainer_is_refused(own, text, message):
    with pytest.raises(InputError, match=message):
        camplug.create(f"{own}:{text}" if text != "Twice" else f"{own}:Twice()", testing.make_network())


def test_names_without_module_or_object_are_refused():
    for text in ("import:math", "import::sqrt", "import:math:"):
        with pytest.raises(InputError, match=r"write import:PACKAGE\.MODULE:NAME"):
            plugins.import_object(text)
    with pytest.raises(ModelError, match=r"import:nowhere_at_all:make.*ModuleNotFoundError.*MODULE:CALLABLE"):
        camplug.load_model("import:nowhere_at_all:make")


def test_the_command_line_takes_them(own, tmp_path):
    Image.new("RGB", (40, 30), "red").save("photo.png")
    good("explain", "photo.png", "--model", "import:camplug.testing:make_network", "--method", f"{own}:Half",
         "--mean", "0.5", "--std", "0.5", "--class", "1", "--out", "map.png")  # fmt: skip
    assert Image.open("map.png").size[1] == 30 + 15  # and a line of text
    model = ("--model", "import:camplug.testing:make_network")
    assert "give a class derived from" in refused("explain", "photo.png", *model, "--method", f"{own}:number")


def test_data_of_ones_own(own):
    assert len(open_data(f"{own}:open_few")) == 3
    assert len(open_data(f"{own}:open_few?count=5")) == 5
    with pytest.raises(InputError, match="must give a SegmentationData"):
        open_data(f"{own}:Softer")

    def open_many(place, split, options):
        return Scenes(int(place))

    register_data("many", open_many, ("light",))
    register_data("many", open_many, ("light",))
    assert len(open_data("many:4")) == 4
    with pytest.raises(InputError, match="there is no option 'dark'; the options of many are light"):
        open_data("many:4?dark=1")
    with pytest.raises(InputError, match=r"'voc' is taken by camplug\.wsss\.data\.opening\._open_voc"):
        register_data("voc", open_many)


def test_a_training_method_of_ones_own_in_a_recipe(own):
    training = {"model": "demo", "method": f"{own}:Softer", "much": 0.25}
    recipe = tiny(classifier={"train": training})
    assert (recipe.classifier.method.name, recipe.classifier.method.much) == ("softer", 0.25)
    assert get_training("softer") is type(recipe.classifier.method)
    with pytest.raises(InputError, match=r"classifier\.train\.method: there is no training method 'nobody'; allowed"):
        tiny(classifier={"train": {**training, "method": "nobody"}})


def test_a_training_method_of_ones_own_is_a_command(own):
    method = f"{own}:Softer"
    assert "The constant." in good("train", method, "--help").stdout
    assert "Training with a constant." in good("train", "--help").stdout  # registered by now
    short = ("--data", "scenes:4", "--device", "cpu", "-m", NET, "--preset", "modern", "--epochs", "1", "--batch", "4",
             "--crop", "48", "--sides", "48,48", "--lr", "0.001")  # fmt: skip
    for name, much in ((method, "0.25"), ("softer", "0.5")):
        done = json.loads(good("train", name, *short, "--much", much, "--out", f"out{much}", "--json").stdout)
        assert done["losses"]["much"] == float(much)
        assert done["images"] == 4
    assert camplug.load_model("out0.25/classifier.pt").classes == list(Scenes(4).classes)
    assert "give a class derived from camplug.wsss.classifier.Method" in refused("train", f"{own}:Half", *short)
    assert "No such command 'nobody'" in run("train", "nobody").stderr


def sections(**refine):
    recipe = tiny(refine=None, deeplab=None, evaluate={"products_on": ["train"]})
    return {**dict(recipe.text), "refine": refine}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_walk_of_ones_own_in_a_recipe(own, tmp_path):
    text = sections(kind=f"{own}:POWER", walk={"power": 3})
    recipe = make_recipe({**text, "pseudo_labels": {}})
    assert (recipe.pseudo_labels.threshold, recipe.pseudo_labels.crf) == (0.25, None)
    run_recipe(recipe, tmp_path / "run")
    before, after = (SeedFolder(next((tmp_path / "run" / "cache").glob(f"{n}-train-*"))) for n in ("seeds", "maps"))
    for name in recipe.data["train"].open().ids:
        one, other = before.load(name), after.load(name)
        assert np.abs(other.maps / 255 - one.to_full_size() ** 3).max() < 1 / 255
    with pytest.raises(InputError, match=r"refine\.walk: power=-1\.0; give a number above 0"):
        make_recipe({**text, "refine": {"kind": f"{own}:POWER", "walk": {"power": -1}}})
    with pytest.raises(InputError, match=r"refine\.kind: 'import:.*:number' is 7; give a camplug\.wsss\.recipe\.Walk"):
        make_recipe(sections(kind=f"{own}:number"))
    with pytest.raises(
        InputError, match=r"refine\.kind = 'nothing'; allowed are none, crf, affinitynet, colour, irn\."
    ):
        make_recipe(sections(kind="nothing"))


def test_a_registered_walk_and_its_version(own):
    walk = plugins.import_object(f"{own}:POWER")
    for version in (1, 2):
        register_walk("power", replace(walk, version=version))
        stages = {stage.name: stage for stage in list_stages(make_recipe(sections(kind="power")), {})}
        assert stages["maps train"].settings.get("version", 1) == version
    with pytest.raises(InputError, match="the walk 'irn' exists already"):
        register_walk("irn", walk)
    assert isinstance(walk, Walk)


def test_a_recipe_names_its_plug_ins(own, tmp_path):
    (tmp_path / "camplug_test_walks.py").write_text(
        "import camplug_test_own\nfrom camplug.wsss.recipe import register_walk\n"
        "register_walk('of_a_file', camplug_test_own.POWER)\n"
    )
    recipe = make_recipe({"plugins": ["camplug_test_walks"], **sections(kind="of_a_file")})
    assert recipe.refine.walk.power == 2.0
    with pytest.raises(InputError, match=r"the plug-in 'nowhere_at_all' could not be imported \(ModuleNotFoundError"):
        make_recipe({"plugins": "nowhere_at_all", **sections()})
    with pytest.raises(InputError, match=r"plugins = 7; give a list of modules"):
        make_recipe({"plugins": 7, **sections()})


def test_registering_again():
    def define(base, name):
        return type("Again", (base,), {"__module__": __name__, "__qualname__": name, "name": "again"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_methods", dict(registry._methods))
        patch.setattr(method, "_METHODS", dict(method._METHODS))
        for register, base, get in (
            (camplug.register("again"), camplug.GradCAM, registry.get_method),
            (register_training, Method, get_training),
        ):
            register(define(base, "Again"))
            second = register(define(base, "Again"))
            assert get("again") is second
            with pytest.raises(InputError, match=r"'again' is taken by test_plugins\.Again|taken by .*Again"):
                register(define(base, "Other"))


def test_entry_points_are_loaded_once_and_a_broken_one_is_left_out(own, monkeypatch):
    points = [
        EntryPoint("broken", "nowhere_at_all:x", plugins.GROUP),
        EntryPoint("own", "camplug_test_own", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    monkeypatch.setattr(plugins, "_is_loaded", False)
    with pytest.warns(UserWarning, match=r"the plug-in 'broken' \(nowhere_at_all:x\) cannot be imported"):
        camplug.list_methods()
    assert "camplug_test_own" in sys.modules
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        camplug.list_methods()


# ---- the checks of camplug.testing find what they are for


class Base(camplug.LayerExplainer):
    def layer_map(self, activation, gradient):
        return (activation * gradient).sum(1).clamp_min(0)


class Signed(Base):
    def layer_map(self, activation, gradient):
        return (activation * gradient).sum(1)


class Batched(Base):
    def layer_map(self, activation, gradient):
        return (activation * gradient.mean((0, 2, 3), keepdim=True)).sum(1).clamp_min(0) + activation.mean().abs()


class Leaves(Base):
    def run(self, x, classes, size=None, inputs=None):
        self.model.train()
        return super().run(x, classes, size, inputs)


class Remembers(Base):
    last = None

    def layer_map(self, activation, gradient):
        self.last = self.last if self.last is not None else super().layer_map(activation, gradient)
        return self.last


class Nan(Base):
    def layer_map(self, activation, gradient):
        return super().layer_map(activation, gradient) / 0.0 * 0.0


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Signed, r"maps lie in \[0, 1\]"),
        (Batched, "the same images one by one"),
        (Leaves, "the model is as before"),
        (Nan, "NaN"),
    ],
)
def test_faults_are_found(cls, message):
    with pytest.raises((AssertionError, camplug.TargetError), match=message):
        testing.check_explainer(cls)


@pytest.mark.parametrize("name", ["gradcam", "fully", "occlusion", "MultiView(gradcam)", "ablationcam"])
def test_our_own_pass(name):
    testing.check_explainer(lambda model: camplug.create(name, model))


def test_a_host_of_models(own):
    build = plugins.import_object(f"{own}:build_small")
    register_host("zoo", build)
    register_host("zoo", build)
    x = testing.make_images()
    torch.testing.assert_close(camplug.load_model("zoo:any")(x), testing.make_network()(x))
    with pytest.raises(ModelError, match=r"'hub:x' names no model; allowed are demo, .*, zoo:NAME\."):
        camplug.load_model("hub:x")
    with pytest.raises(InputError, match="the host 'timm' exists already"):
        register_host("timm", build)


def test_a_metric_by_its_place(own):
    (metric,) = find_metrics(f"{own}:MEAN")
    assert (metric.name, metric.better) == ("mean", "lower")
    with pytest.raises(InputError, match=r"number' is 7; give a camplug\.trust\.Metric"):
        find_metrics([f"{own}:number"])
