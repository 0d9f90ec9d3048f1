"""Recipes for data of one's own: what is counted, sizes and epochs, and the text, which is read back."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import Photographs, open_data
from camplug.wsss.recipe import Row, make_recipe
from camplug.wsss.recipe.starter import (
    DataSummary,
    StarterSettings,
    choose_settings,
    fit_epochs,
    format_recipe,
    summarize_data,
)

SMALL = StarterSettings(320, {"classifier": 20, "irn": 4, "deeplab": 30})


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a", (40, 20)), ("b", (40, 20)), ("c", (60, 30))):
        Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "labels.csv").write_text("image,labels\na.png,cat;dog\nb.png,dog\nc.png,\nbroken.png,dog\n")
    return folder


def test_images_classes_and_sizes_are_counted(photos):
    found = summarize_data(open_data(f"folder:{photos}"))
    assert found == DataSummary(4, (20, 40), {"cat": 1, "dog": 3}, 1, 1, False, found.problem)
    assert "broken.png" in found.problem
    rare, broken = found.list_warnings()
    assert "cat (1), dog (3)" in rare
    assert broken == f"1 of 4 photographs looked at cannot be read: {found.problem}"


def test_labels_are_needed_and_a_readable_photograph(photos):
    with pytest.raises(InputError, match=r"without image labels.*labels\.csv"):
        summarize_data(Photographs([photos]))
    (photos / "labels.csv").write_text("image,labels\nbroken.png,dog\n")
    with pytest.raises(InputError, match="none of 1 photographs can be read"):
        summarize_data(open_data(f"folder:{photos}"))


@pytest.mark.parametrize(
    "images, size, device, side, epochs",
    [
        (200, (375, 500), "cpu", 320, (20, 4, 30)),  # few images: the limits
        (1000, (300, 250), "cpu", 288, (13, 4, 22)),  # no larger than the photographs
        (100_000, (1000, 2000), "cuda:0", 512, (4, 1, 5)),
    ],
)
def test_sizes_and_epochs_follow_the_data(images, size, device, side, epochs):
    found = choose_settings(DataSummary(images, size, {"cat": images}, 0, 0, False), device)
    assert (found.long_side, tuple(found.epochs.values())) == (side, epochs)


def test_epochs_are_lowered_to_the_time_and_no_further_than_they_make_sense():
    rows = [Row("classifier", "to run", 9, 20, 100.0), Row("deeplab", "to run", 9, 30, 300.0)]
    rows += [Row("seeds train", "to run", 9, None, 50.0), Row("affinities", "to run", 9, 4, 40.0)]
    assert fit_epochs(SMALL, rows, 1000) == (SMALL, 490.0)
    half, seconds = fit_epochs(SMALL, rows, 270)  # 50 + 440 / 2
    assert half.epochs == {"classifier": 10, "irn": 2, "deeplab": 15}
    assert seconds == 270.0
    least, seconds = fit_epochs(SMALL, rows, 1)
    assert least.epochs == {"classifier": 4, "irn": 1, "deeplab": 5}
    assert seconds == 50 + 20 + 10 + 50
    assert fit_epochs(SMALL, [*rows, Row("report", "to run", 9)], 1) == (SMALL, None)


def test_the_text_is_a_recipe(photos):
    name = 'folder:C:\\photos "of" mine'
    summary = DataSummary(200, (375, 500), {"cat": 150, "guinea pig": 50}, 0, 0, False)
    text = format_recipe({"data": name}, summary, SMALL, val={"data": "scenes:4"}, facts=["about 5.0 min"])
    recipe = make_recipe(yaml.safe_load(text))
    assert recipe.data["train"].data == name
    assert recipe.data["val"].data == "scenes:4"
    assert recipe.evaluate.products_on == ("train", "val")
    assert (recipe.deeplab.training.training.epochs, recipe.classifier.span.epochs) == (30, 20)
    assert (recipe.refine.long_side, recipe.seeds.long_side, recipe.segment.long_side) == (None, 320, 320)
    assert "# images per class: cat 150; guinea pig 50\n# about 5.0 min\n" in text
    alone = format_recipe({"data": name}, summary, SMALL)
    assert make_recipe(yaml.safe_load(alone)).evaluate.products_on == ("train",)
    assert "there are no masks" in alone
    short = format_recipe({"data": "folder:/a/long/way/to/birds?labels=b.csv"}, summary, SMALL)
    assert short.startswith('title: "CAM, IRN, DeepLab on birds"\n')


def test_batches_are_filled_by_few_images():
    def read_batches(images, unlabelled):
        summary = DataSummary(images, (375, 500), {"cat": images - unlabelled}, unlabelled, 0, False)
        recipe = make_recipe(yaml.safe_load(format_recipe({"data": "scenes:4"}, summary, SMALL)))
        trainings = recipe.classifier.span, recipe.refine.training.training, recipe.deeplab.training.training
        return [training.batch for training in trainings]

    assert read_batches(200, 0) == [16, 8, 12]
    assert read_batches(13, 3) == [10, 8, 10]
