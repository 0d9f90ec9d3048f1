"""Label pictures corrected by hand: they replace others, in their own class numbers, and are drawn more often."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import labelled
import numpy as np
import pytest
import torch
import trainable
from recipes import tiny

from camplug.errors import InputError
from camplug.wsss.data import Scenes
from camplug.wsss.deeplab import DeepLabSettings
from camplug.wsss.deeplab.corrected import CorrectedLabels, digest_corrected
from camplug.wsss.deeplab.crops import SegmentationCrops
from camplug.wsss.deeplab.train import DeepLabTask
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.train import LabelCrops
from camplug.wsss.train.crops import load_label_picture


def correct(path, data, numbers, value):
    """Label pictures of one class, in the reverse order of classes."""
    folder = LabelFolder(path).prepare({"classes": list(data.classes[::-1])})
    for i in numbers:
        folder.save(data.ids[i], np.full((48, 48), value, np.uint8))
    return path


@pytest.fixture
def data():
    return labelled.scenes(4)


def test_corrected_pictures_take_the_place_of_others(tmp_path, data):
    plain = LabelFolder(labelled.labels(tmp_path / "labels", 4)).renumber(data.classes)
    both = CorrectedLabels(tmp_path / "labels", correct(tmp_path / "new", data, [1, 3], 1)).renumber(data.classes)
    for i, name in enumerate(data.ids):
        wanted = np.full((48, 48), 3) if i in {1, 3} else plain.load(name)  # the first name there is the last one here
        np.testing.assert_array_equal(both.load(name), wanted)
        assert both.get_path(name).parent.name == ("new" if i in {1, 3} else "labels")
    assert both.find_images(data) == [1, 3]


def test_pictures_of_other_images_are_left_out(tmp_path, data):
    labels, new = labelled.labels(tmp_path / "labels", 4), correct(tmp_path / "new", data, [1, 3], 1)
    both = CorrectedLabels(labels, new)
    with pytest.warns(UserWarning, match="1 of 2 corrected label pictures in .* are left out, .*: 'scene0_000003'\\."):
        assert both.find_images(labelled.scenes(3)) == [1]
    few = digest_corrected(new, labelled.scenes(3).ids)
    assert few != digest_corrected(new) == digest_corrected(new, data.ids)
    assert few == digest_corrected(correct(tmp_path / "other", data, [1], 1))
    with pytest.raises(InputError, match=r"no corrected label picture in .*: there are 'scene0_000001', "):
        both.find_images(labelled.scenes(1))


def test_corrected_images_have_several_crops_in_an_epoch(tmp_path, data):
    folder = LabelFolder(labelled.labels(tmp_path, 4)).renumber(data.classes)
    load = partial(load_label_picture, folder, data)
    crops = LabelCrops(data, load, lambda p: p.float(), crop=32, scales=(0.8, 1.2), stride=1)
    crops.indices = [0, 2, 3]
    items = SegmentationCrops(crops, None, often=[2, 3], repeat=4)
    assert len(items) == 3 + 3 * 2
    numbers = [int(items[0, k].number) for k in range(len(items))]
    assert numbers == [0, 2, 3, 2, 3, 2, 3, 2, 3]
    of_two = [items[0, k].image for k in (1, 3, 5, 7)]
    assert all(not torch.equal(a, b) for i, a in enumerate(of_two) for b in of_two[:i])
    assert torch.equal(items[0, 3].image, items[0, 3].image)
    assert not torch.equal(items[0, 3].image, items[1, 3].image)
    places = [crops.make_view((48, 48), 0, 2, draw).place for draw in range(4)]
    assert len({*places}) == 4
    assert places[0] == crops.make_view((48, 48), 0, 2).place
    once = SegmentationCrops(crops)
    assert all(torch.equal(items[0, k].image, once[0, k].image) for k in range(3))


@pytest.mark.filterwarnings("ignore:.*does not say.*")
def test_a_training_gets_them_and_is_another_one(tmp_path, data):
    labelled.labels(tmp_path / "labels", 4)
    correct(tmp_path / "new", data, [1], 2)
    options = {"preprocess": None}
    tasks = [
        DeepLabTask(trainable.net(), data, folder, tmp_path / "out", labelled.SETTINGS, None, None, options)
        for folder in (
            LabelFolder(tmp_path / "labels"), CorrectedLabels(tmp_path / "labels", tmp_path / "new", repeat=3)
        )
    ]  # fmt: skip
    plain, given = (task.prepare() for task in tasks)
    assert (plain.images, len(plain.items)) == (4, 4)
    assert (given.images, len(given.items)) == (4, 6)
    assert tasks[1].describe()["corrected"] == {"classes": list(data.classes[::-1]), "repeat": 3}
    assert "corrected" not in tasks[0].describe()
    assert tasks[0].compute_tables() != tasks[1].compute_tables()


@pytest.mark.filterwarnings("ignore:.*does not say.*")
def test_one_draw_is_the_training_on_labels_with_the_corrected_ones_among_them(tmp_path):
    data = labelled.scenes()
    span = replace(labelled.SPAN, epochs=1)
    settings = DeepLabSettings(labelled.NETWORK, span)
    given = correct(tmp_path / "new", data, range(4), 1)
    one = labelled.trained(tmp_path, "one", settings, corrected=given, corrected_repeat=1).network
    plain = labelled.trained(tmp_path, "plain", settings).network
    folder = LabelFolder(tmp_path / "labels").prepare({"classes": list(data.classes)})
    for name in data.ids[:4]:
        folder.save(name, np.full((48, 48), 3, np.uint8))
    assert trainable.same(one, labelled.trained(tmp_path, "other", settings).network)
    assert not trainable.same(one, plain)


def test_recipes_know_them_by_their_content(tmp_path):
    scenes = Scenes(8, (48, 64), classes=3)
    folders = [correct(tmp_path / name, scenes, [1], value) for name, value in (("a", 1), ("b", 1), ("c", 2))]
    found = []
    for folder in folders:
        recipe = tiny(deeplab={**tiny().text["deeplab"], "corrected": str(folder), "corrected_repeat": 2})
        lists = {name: part.open() for name, part in recipe.data.items()}
        stage = RecipeGraph(recipe, lists).segmenter
        found.append(stage.settings["corrected"])
        assert stage.settings["corrected"]["repeat"] == 2
    assert found[0]["digest"] == found[1]["digest"] == digest_corrected(folders[0])
    assert found[0]["digest"] != found[2]["digest"]
    reverse = json.loads((folders[1] / "settings.json").read_text())
    reverse["classes"] = list(scenes.classes)  # the same pictures, of other classes
    (folders[1] / "settings.json").write_text(json.dumps(reverse))
    assert digest_corrected(folders[1]) != found[1]["digest"]
    with pytest.raises(InputError, match="corrected_repeat=0; give 1 or more"):
        tiny(deeplab={**tiny().text["deeplab"], "corrected_repeat": 0})
    with pytest.raises(InputError, match="no folder with corrected label pictures"):
        CorrectedLabels(tmp_path, tmp_path / "none")
