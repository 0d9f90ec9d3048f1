"""Recipes are read and checked as a whole; every mistake is told in a sentence that names the place."""

from __future__ import annotations

import copy

import pytest
from recipes import TINY, tiny

from camplug.errors import InputError
from camplug.settings import restore_settings, to_plain
from camplug.wsss.atm import ATM
from camplug.wsss.crf import CRFSettings
from camplug.wsss.fpr import FPR
from camplug.wsss.recipe import list_recipes, make_recipe, read_recipe
from camplug.wsss.recipe.sections import NetworkSettings
from camplug.wsss.recipe.stages.classifier import ClassifierSettings

YAML = """
data:
  train: {data: "voc:${WHERE}/VOC", split: train_aug, images: 10582}
classifier: {given: {model: demo}}
seeds: {explainer: "MultiView(CAM)"}
pseudo_labels: {threshold: 0.3}
"""


def test_values_land_in_the_settings_of_every_part():
    recipe = tiny(deeplab={"lr": "1e-3", "head": "large-fov", "width": 32, "scales": [0.5, 2]})
    assert isinstance(recipe.classifier, ClassifierSettings)
    assert recipe.classifier.span.epochs == 2
    assert recipe.classifier.span.sides == (48, 64)
    assert recipe.classifier.learning.batch_norm == "train"
    assert recipe.classifier.learning.schedule.optimizer == "adamw"  # of the preset
    training = recipe.refine.training
    assert training.training.crop == 32
    assert training.network.radius == 3
    assert training.network.schedule.lr == 0.01
    assert training.crf is None
    network = recipe.deeplab.training.network
    assert (network.head, network.width, network.output_stride) == ("large-fov", 32, None)
    assert network.schedule.lr == 0.001  # YAML reads 1e-3 as a text
    assert recipe.deeplab.training.training.scales == (0.5, 2.0)
    assert recipe.evaluate.products_on == ("train", "val")


def test_settings_survive_json():
    recipe = tiny(pseudo_labels={"crf": {"gaussian": [2, 3], "bilateral": [40, 4, 10], "iterations": 5}})
    assert recipe.pseudo_labels.crf == CRFSettings((2.0, 3.0), (40.0, 4.0, 10.0), 5)
    for settings in (recipe.classifier.span, recipe.classifier.learning, recipe.refine.training, recipe.segment):
        assert restore_settings(type(settings), to_plain(settings)) == settings
    assert restore_settings(type(recipe.deeplab.training), to_plain(recipe.deeplab.training)) == recipe.deeplab.training
    for method in (ATM(dilations=(1, 2)), FPR(groups={"pets": ["cat", "dog"]})):
        assert restore_settings(type(method), to_plain(method)) == method


@pytest.mark.parametrize(
    ("kind", "threshold", "crf"),
    [
        ("irn", 0.25, "irn"),
        ("affinitynet", 0.5, "affinitynet"),
        ("crf", 0.3, "irn"),
        ("none", 0.3, None),
        ("colour", 0.3, "irn"),
    ],
)
def test_defaults_follow_the_kind_of_refinement(kind, threshold, crf):
    own = {} if kind in ("irn", "affinitynet") else {"threshold": 0.3}
    recipe = make_recipe({**TINY, "refine": {"kind": kind}, "pseudo_labels": own})
    assert (recipe.pseudo_labels.threshold, recipe.pseudo_labels.crf) == (threshold, crf)


def test_the_command_line_comes_first_and_variables_are_replaced(tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text(YAML)
    monkeypatch.setenv("WHERE", "/somewhere")
    recipe = read_recipe(file, ["seeds.explainer=MultiView(CAM, scales=(1, 2))", "deeplab.epochs=3"])
    assert recipe.name == "mine"
    assert recipe.seeds.explainer == "MultiView(CAM, scales=(1, 2))"
    assert recipe.deeplab.training.training.epochs == 3
    assert recipe.data["train"].data == "voc:/somewhere/VOC"
    assert read_recipe(file, data_root="/else").data["train"].data == "voc:/else/VOC"
    monkeypatch.delenv("WHERE")
    assert read_recipe(file).data["train"].data == "voc:${WHERE}/VOC"  # told when it is needed


def test_toml_says_the_same(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[data.train]\ndata = "scenes:8"\n[classifier.given]\nmodel = "demo"\n[pseudo_labels]\nthreshold = 0.3\n'
    )
    recipe = read_recipe(file)
    assert recipe.classifier == NetworkSettings("demo")
    assert recipe.pseudo_labels.threshold == 0.3
    assert recipe.deeplab is None


def test_fpr_names_the_classifier_that_it_begins_with():
    first = copy.deepcopy(TINY["classifier"])
    recipe = make_recipe({**TINY, "classifier": {"train": {"method": "fpr", "start": first, "clusters": 3}}})
    assert recipe.classifier.method == FPR(clusters=3)
    assert recipe.classifier.start.method.name == "classifier"
    with pytest.raises(InputError, match=r"describe it in classifier\.train\.start"):
        make_recipe({**TINY, "classifier": {"train": {"method": "fpr"}}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": None}, "the section data is missing; write"),
        ({"classifier": None}, "the section classifier is missing; write"),
        ({"seds": {}}, "seds: there is no such section; did you mean 'seeds'?"),
        ({"seeds": {"explaner": "CAM"}}, "seeds.explaner: there is no such setting; did you mean 'explainer'?"),
        ({"deeplab": {"learning_rate": 1}}, "deeplab.learning_rate: there is no such setting"),
        ({"deeplab": {"lr": "fast"}}, "deeplab.lr = 'fast' cannot be read; give a number."),
        ({"deeplab": {"lr": -1}}, "deeplab: lr=-1.0; give at least 0."),
        ({"deeplab": {"refinement": 0.1}}, "deeplab.refinement and deeplab.saliency go together"),
        ({"refine": {"kind": "crf"}}, "refine.training has no effect with kind: crf"),
        (
            {"refine": {"kind": "colour", "training": {"epochs": 1}}},
            "refine.training has no effect with kind: colour; leave it out.",
        ),
        (
            {"pseudo_labels": {"crf": "par", "certainty": 0.8}},
            "pseudo_labels.certainty has no effect with crf: par; leave it out.",
        ),
        ({"refine": {"kind": "walk"}}, "refine.kind = 'walk'; allowed are none, crf, affinitynet, colour, irn."),
        ({"refine": {"walk": {"beta": -1}}}, "refine.walk: beta=-1; give a number above 0"),
        ({"refine": {"training": {"foreground": 0.1, "background": 0.2}}}, "refine.training: thresholds 0.1"),
        ({"seeds": {"explainer": "MultiView(CAM, scales=(0,))"}}, "seeds.explainer: scales=(0,); give positive"),
        ({"seeds": {"explainer": "NoCAM"}}, "seeds.explainer: there is no method 'NoCAM'"),
        ({"refine": {"scale": 0}}, "refine: scale=0.0; give more than 0 and at most 1."),
        ({"seeds": {"scale": 2}}, "seeds: scale=2.0; give more than 0 and at most 1."),
        ({"pseudo_labels": {"threshold": "best on test"}}, "there is no list data.test; there are train, val"),
        ({"pseudo_labels": {"threshold": "the best"}}, 'give a number, otsu, or "best on" a list'),
        ({"pseudo_labels": {"crf": "dense"}}, "there is no CRF 'dense'"),
        ({"classifier": {"given": {}}}, "classifier: give either given"),
        ({"evaluate": {"convention": "mine"}}, "evaluate.convention='mine'; allowed are present, all, truth"),
        ({"evaluate": {"products_on": ["val"]}}, "give [train] or [train, val]"),
        (
            {"data": {"test": {"data": "scenes:3"}}},
            "data.test: there is no such setting; allowed are train, val, threshold, score_on.",
        ),
        ({"data": {"val": {"split": "val"}}}, "data.val.data is missing"),
    ],
)
def test_mistakes_are_told(changes, says):
    with pytest.raises(InputError) as error:
        tiny(**changes)
    assert says in str(error.value)
    assert str(error.value).endswith((".", "?", "}"))


def test_a_threshold_that_nothing_says_is_asked_for():
    with pytest.raises(InputError, match=r"pseudo_labels.threshold is missing: .*data.threshold"):
        make_recipe({**TINY, "refine": {"kind": "none"}, "pseudo_labels": {}})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{}", "a recipe is a .toml, .yaml or .yml file"),
        ("a.yaml", "a: [", "this is not YAML"),
        ("a.toml", "a = ", "this is not TOML"),
        ("a.yaml", "- 1", "holds no sections"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says):
        read_recipe(tmp_path / name)


def test_a_recipe_that_does_not_exist_names_the_shipped_ones():
    with pytest.raises(InputError, match=f"there is no recipe 'mine'; .*{', '.join(list_recipes())}"):
        read_recipe("mine")
    with pytest.raises(InputError, match="--set 'seeds' cannot be read"):
        read_recipe("scenes", ["seeds"])
