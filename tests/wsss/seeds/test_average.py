"""Averages of seeds: values by hand, classes by name, what is made again, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import Scenes
from camplug.wsss.saliency_source import SaliencySource
from camplug.wsss.seeds import Seed, SeedFolder, average_seed_maps, make_average_seeds
from camplug.wsss.seeds.average import prepare_average_seeds

DATA = Scenes(2, (16, 20), classes=3)
SIZE = (16, 20)


def folder_of(path, values, classes=DATA.classes, numbers=None):
    """Seeds whose maps have one value per class of the image."""
    folder = SeedFolder(path).prepare({"classes": list(classes)})
    for i, name in enumerate(DATA.ids):
        own = DATA.labels(i) if numbers is None else numbers(DATA.labels(i))
        maps = np.stack([np.full(SIZE, values + 10 * k, np.uint8) for k in range(len(own))])
        folder.save(name, Seed(maps, tuple(own), SIZE, np.zeros(len(classes), np.float32)))
    return folder


def average(sources, out, weights, **options):
    open_folder = SeedFolder(out).prepare
    return prepare_average_seeds(DATA, sources, weights, open_folder, **options)()


def test_the_mean_by_hand():
    a, b, s = (np.array([[v]], np.float32) for v in ([0.0, 1.0], [0.5, 0.25], [1.0, 0.0]))
    np.testing.assert_allclose(average_seed_maps([a, b], [1, 1]), [[[0.25, 0.625]]], atol=1e-7)
    np.testing.assert_allclose(average_seed_maps([a, b], [2, 1, 1], s[0]), [[[0.375, 0.5625]]], atol=1e-7)


def test_seeds_are_averaged_and_made_again_when_one_changes(tmp_path):
    one, two = folder_of(tmp_path / "one", 100), folder_of(tmp_path / "two", 200)
    report = average([one, two], tmp_path / "out", [1, 3])
    assert (report.made, report.broken) == (2, [])
    seed = SeedFolder(tmp_path / "out").load(DATA.ids[0])
    assert seed.classes == DATA.labels(0)
    assert np.unique(seed.maps[0]).tolist() == [175]
    assert average([one, two], tmp_path / "out", [1, 3]).found == 2
    two.save(
        DATA.ids[1], Seed(np.zeros_like(two.load(DATA.ids[1]).maps), DATA.labels(1), SIZE, np.zeros(3, np.float32))
    )
    again = average([one, two], tmp_path / "out", [1, 3])
    assert (again.made, again.found) == (1, 1)
    assert np.unique(SeedFolder(tmp_path / "out").load(DATA.ids[1]).maps[0]).tolist() == [25]
    with pytest.raises(InputError, match=r"holds seeds of other settings: average\.weights differs"):
        average([one, two], tmp_path / "out", [1, 1])


def test_classes_are_matched_by_name(tmp_path):
    turned = list(reversed(DATA.classes))
    one = folder_of(tmp_path / "one", 100)
    other = folder_of(tmp_path / "two", 200, turned, lambda own: [2 - c for c in own])
    average([one, other], tmp_path / "out", [1, 1])
    found = SeedFolder(tmp_path / "out").load(DATA.ids[0])
    assert found.classes == DATA.labels(0)
    assert [int(m[0, 0]) for m in found.maps] == [150 + 10 * k for k in range(len(found.classes))]


def test_saliency_of_a_folder_counts_for_every_class(tmp_path):
    one, grey = folder_of(tmp_path / "one", 100), tmp_path / "grey"
    grey.mkdir()
    for name in DATA.ids:
        Image.fromarray(np.full(SIZE, 200, np.uint8)).save(grey / f"{name}.png")
    average([one], tmp_path / "out", [1, 1], saliency=SaliencySource(str(grey), DATA))
    seed = SeedFolder(tmp_path / "out").load(DATA.ids[0])
    assert [int(m[0, 0]) for m in seed.maps] == [150 + 5 * k for k in range(len(seed.classes))]
    Image.fromarray(np.full(SIZE, 0, np.uint8)).save(grey / f"{DATA.ids[0]}.png")
    again = average([one], tmp_path / "out", [1, 1], saliency=SaliencySource(str(grey), DATA))
    assert (again.made, again.found) == (1, 1)
    with pytest.raises(InputError, match="give contrast or spectral, a folder"):
        SaliencySource(str(tmp_path / "none"), DATA)


def test_what_is_refused(tmp_path):
    one = folder_of(tmp_path / "one", 100)
    other = folder_of(tmp_path / "two", 200, numbers=lambda own: [(c + 1) % 3 for c in own[:1]])
    report = average([one, other], tmp_path / "out", [1, 1])
    assert report.made == 0
    assert f"the seeds of {DATA.ids[0]!r} differ in classes or size: classes" in report.broken[0][1]
    for weights in ([1], [1, 0], [1, float("inf")]):
        with pytest.raises(InputError, match="give one number above 0 for each folder"):
            average([one, other], tmp_path / "bad", weights)
    with pytest.raises(InputError, match="no seeds to average"):
        make_average_seeds(DATA, [], SeedFolder(tmp_path / "bad"), [])
