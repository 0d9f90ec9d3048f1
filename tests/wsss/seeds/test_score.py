"""Scores of seeds and label pictures: broken images are listed, and nothing is scored where all are broken."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.metrics import ConfusionMatrix
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import Seed, SeedFolder, score_labels, score_seeds

DATA = Scenes(3, (24, 32), classes=2)


def save_seed(folder, i):
    labels, none = DATA.labels(i), np.zeros(0, np.float32)
    maps = np.stack([255 * (DATA.mask(i) == c + 1) for c in labels]).astype(np.uint8)
    folder.save(DATA.ids[i], Seed(maps, labels, (24, 32), none))


def test_broken_images_are_listed_and_passed(tmp_path):
    folder, steps = SeedFolder(tmp_path), []
    folder.prepare({"classes": list(DATA.classes)})
    for i in (0, 2):
        save_seed(folder, i)
    sweep, broken = score_seeds(folder, DATA, step=lambda: steps.append(1))
    assert [name for name, _ in broken] == [DATA.ids[1]]
    assert len(steps) == 3
    wanted = ConfusionMatrix(3)
    for i in (0, 2):
        wanted.add(DATA.mask(i), DATA.mask(i))
    assert (sweep.at(0.5) == wanted.matrix).all()


def test_labels_of_some_of_the_classes(tmp_path):
    """They are matched by name; the pixels of a class that the labels lack are missed."""
    data = Scenes(3, (24, 32), classes=3)
    one, _, other = data.classes
    (tmp_path / "settings.json").write_text(json.dumps({"holds": "labels", "classes": [other, one]}))
    wanted = ConfusionMatrix(4)
    for i, name in enumerate(data.ids):
        mask = data.mask(i)
        Image.fromarray(np.choose(mask, [0, 2, 0, 1]).astype(np.uint8)).save(tmp_path / f"{name}.png")
        wanted.add(np.where(mask == 2, 0, mask), mask)
    with pytest.warns(UserWarning, match=f"has no class '{data.classes[1]}': 1 of the data's 3 are never found"):
        matrix, broken = score_labels(tmp_path, data)
    assert not broken
    np.testing.assert_array_equal(matrix.matrix, wanted.matrix)
    assert matrix.matrix[2].sum() > 0


def test_nothing_is_scored_where_all_images_are_broken(tmp_path):
    folder = SeedFolder(tmp_path)
    folder.prepare({"classes": list(DATA.classes)})
    folder.write_settings()
    with pytest.raises(InputError, match=r"none of the 3 images could be scored; the first one: "):
        score_seeds(folder, DATA)
    labels = tmp_path / "labels"
    labels.mkdir()
    with pytest.raises(InputError, match=r"none of the 3 images could be scored; the first one: "):
        score_labels(labels, DATA)
    Image.fromarray(DATA.mask(1)).save(labels / f"{DATA.ids[1]}.png")
    matrix, broken = score_labels(labels, DATA)
    assert (np.trace(matrix.matrix), len(broken)) == (24 * 32, 2)
