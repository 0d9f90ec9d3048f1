"""Label pictures and walked maps of a data set: classes, files, going on, and images that fail."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from heads import CLASSES, photos, random_seeds, tiny
from numpy.testing import assert_array_equal
from PIL import Image

from camplug.errors import CamplugError, InputError
from camplug.wsss.affinitynet import AffinityNet, AffinityNetHeadSettings
from camplug.wsss.data import make_voc_palette
from camplug.wsss.data.masks import read_mask
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.pseudo import (
    AffinityNetWalk,
    IRNWalk,
    LabelFolder,
    PseudoLabels,
    Threshold,
    make_labels,
    make_walked_seeds,
    renumber_to_data,
)
from camplug.wsss.seeds import Seed, SeedFolder
from camplug.wsss.store.seed_folder import pack_maps
from camplug.wsss.train import Backbone

LABELS = {"a.png": ["dog"], "b.png": ["cat", "yak"], "c.png": [], "d.png": ["cat", "dog", "yak"]}


class Halved:
    """A walk that halves maps."""

    def maps(self, photo, maps):
        return maps / 2


@pytest.fixture
def made(tmp_path):
    data = photos(tmp_path / "mine", LABELS)
    return data, random_seeds(tmp_path / "seeds", data), tmp_path


def labels_folder(path):
    folder = LabelFolder(path)
    folder.prepare({"classes": CLASSES})
    return folder


def hashes(path, ending="png"):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.glob(f"*.{ending}")}


def test_labels_have_the_classes_of_the_data(made):
    data, seeds, place = made
    folder = labels_folder(place / "labels")
    report = make_labels(PseudoLabels(Threshold(0.4)), data, seeds, folder)
    assert (report.made, report.found, report.broken) == (4, 0, [])
    assert report.bytes == sum(p.stat().st_size for p in folder.path.glob("*.png"))
    for name in data.ids:
        seed = seeds.load(name)
        values = np.concatenate([np.full((1, *seed.size), 0.4), seed.maps.astype(np.float64)])
        expected = np.array([0, *(c + 1 for c in seed.classes)])[values.argmax(0)]
        assert_array_equal(read_mask(folder.get_path(name), 3), expected)
    assert not read_mask(folder.get_path("c"), 3).any()


def test_pictures_have_the_colours_of_voc(made):
    data, seeds, place = made
    folder = labels_folder(place / "labels")
    make_labels(PseudoLabels(Threshold(0.4)), data, seeds, folder)
    picture = Image.open(folder.get_path("d"))
    assert (picture.mode, picture.size) == ("P", (20, 14))
    indices = np.asarray(picture)
    assert_array_equal(np.asarray(picture.convert("RGB")), make_voc_palette()[indices])


def test_ignored_pixels_stay_ignored():
    assert_array_equal(renumber_to_data(np.array([[0, 1, 255, 2]]), (3, 19)), [[0, 4, 255, 20]])
    assert_array_equal(renumber_to_data(np.zeros((2, 1), np.uint8), ()), [[0], [0]])


def test_going_on_and_shares(made):
    data, seeds, place = made
    labels = PseudoLabels(Threshold(0.4))
    make_labels(labels, data, seeds, labels_folder(place / "whole"))
    folder = labels_folder(place / "parts")
    assert make_labels(labels, data, seeds, folder, shard=(1, 2)).made == 2
    folder.get_path("a").with_name("a.png.7.part").write_bytes(b"half")
    folder.get_path("c").write_bytes(folder.get_path("b").read_bytes()[:-4])  # cut off
    steps = []
    report = make_labels(labels, data, seeds, folder, step=lambda r: steps.append((r.made, r.found)))
    assert steps == [(1, 0), (1, 1), (2, 1), (2, 2)]
    assert (report.made, report.found) == (2, 2)
    assert hashes(place / "parts") == hashes(place / "whole")
    assert not list((place / "parts").glob("*.part"))


def test_what_fails_is_listed_and_the_others_are_made(made):
    data, seeds, place = made
    seeds.get_path("a").unlink()
    seed = seeds.load("b")
    seeds.save("b", Seed(seed.maps, seed.classes, (20, 14), seed.logits))
    photo = place / "mine" / "images" / "d.png"
    photo.write_bytes(photo.read_bytes()[:300])
    folder = labels_folder(place / "labels")
    report = make_labels(PseudoLabels(Threshold(0.4)), data, seeds, folder)
    assert report.made == 1
    errors = dict(report.broken)
    assert list(errors) == ["a", "b", "d"]
    assert "there is no seed" in errors["a"]
    assert errors["b"] == "the seed of 'b' is of a photograph of 14x20 pixels, this one has 20x14; make the seed anew."
    assert "d.png" in errors["d"]
    assert list(hashes(folder.path)) == ["c.png"]


def test_seeds_of_other_data_end_the_run(made):
    data, seeds, place = made
    seed = seeds.load("a")
    seeds.save("a", Seed(seed.maps, (7,), seed.size, seed.logits))
    with pytest.raises(CamplugError, match="the seed of 'a' has class 7, the data has 3 classes"):
        make_labels(PseudoLabels(Threshold(0.4)), data, seeds, labels_folder(place / "labels"))


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_walked_seeds(made, dtype):
    data, seeds, place = made
    folder = SeedFolder(place / "walked")
    folder.prepare({"classes": CLASSES})
    report = make_walked_seeds(Halved(), data, seeds, folder, dtype=dtype)
    assert (report.made, report.broken) == (4, [])
    for name in data.ids:
        before, after = seeds.load(name), folder.load(name)
        assert after.maps.dtype == dtype
        assert (after.classes, after.size) == (before.classes, before.size)
        assert_array_equal(after.logits, before.logits)
        halves = before.to_full_size() / 2
        assert_array_equal(after.maps, np.rint(halves * 255) if dtype == "uint8" else halves.astype(np.float16))
    small = SeedFolder(place / "small")
    small.prepare({"classes": CLASSES})
    make_walked_seeds(Halved(), data, seeds, small, dtype=dtype, scale=0.25)
    for name in data.ids:
        halves = torch.from_numpy(seeds.load(name).to_full_size() / 2)
        assert_array_equal(small.load(name).maps, pack_maps(halves, dtype, 0.25))
    with pytest.raises(InputError, match=r"scale=2; give more than 0 and at most 1\."):
        make_walked_seeds(Halved(), data, seeds, folder, scale=2)
    with pytest.raises(InputError, match="dtype='int8'; allowed are 'uint8', 'float16'"):
        make_walked_seeds(Halved(), data, seeds, folder, dtype="int8")


@pytest.mark.parametrize("kind", ["irn", "affinitynet"])
def test_a_network_of_a_device_makes_the_same_files(made, kind, device):
    """Walked maps of all images, and labels after a CRF; maps may differ by a step of their 255."""
    data, seeds, place = made

    def files(where, name):
        torch.manual_seed(0)
        if kind == "irn":
            walk = IRNWalk(IRN(Backbone(tiny()), IRNHeadSettings(width=0)).to(where).eval(), 0.5, steps=4)
        else:
            walk = AffinityNetWalk(
                AffinityNet(Backbone(tiny()), AffinityNetHeadSettings(width=56)).to(where).eval(), steps=2
            )
        walked, labels = SeedFolder(place / f"walked {name}"), labels_folder(place / f"labels {name}")
        walked.prepare({"classes": CLASSES})
        reports = [
            make_walked_seeds(walk, data, seeds, walked),
            make_labels(PseudoLabels(walk, "irn"), data, seeds, labels),
        ]
        assert [(r.made, r.broken) for r in reports] == [(4, [])] * 2
        return [(walked.load(image).maps, read_mask(labels.get_path(image), 3)) for image in data.ids]

    for (maps, labels), (maps_there, labels_there) in zip(files("cpu", "here"), files(device, "there"), strict=True):
        assert np.abs(maps.astype(int) - maps_there).max(initial=0) <= 1
        assert (labels != labels_there).mean() < 0.02


def test_a_folder_of_labels_says_so(tmp_path):
    folder = LabelFolder(tmp_path)
    folder.prepare({"classes": CLASSES, "crf": {"iterations": 10}})
    folder.save("a", np.zeros((2, 3), np.uint8))
    assert folder.read_settings() == {"holds": "labels", "classes": CLASSES, "crf": {"iterations": 10}}
    with pytest.raises(InputError, match=r"crf.iterations differs \(crf.iterations: 10 there, 5 now\)"):
        LabelFolder(tmp_path).prepare({"classes": CLASSES, "crf": {"iterations": 5}})


def test_large_photographs_at_a_long_side(made):
    """Labels are those of the photograph and the maps at the smaller size, brought back by the nearest."""
    data, seeds, place = made
    seen = []

    def labels(photo, maps):
        seen.append((photo.shape, maps.shape))
        return PseudoLabels(Threshold(0.5))(photo, maps)

    folder = labels_folder(place / "labels")
    report = make_labels(labels, data, seeds, folder, long_side=10)
    assert report.made == 4
    assert seen == [((7, 10, 3), (len(names), 7, 10)) for names in LABELS.values()]  # of photographs of 20x14
    for i, name in enumerate(data.ids):
        seed = seeds.load(name)
        small = seed.resize((7, 10))
        photo = np.asarray(data.photo(i).resize((10, 7), Image.Resampling.BICUBIC))
        expected = renumber_to_data(PseudoLabels(Threshold(0.5))(photo, small), seed.classes)
        assert_array_equal(read_mask(folder.get_path(name), 3), expected.repeat(2, 0).repeat(2, 1))
    same = labels_folder(place / "same")
    make_labels(PseudoLabels(Threshold(0.5)), data, seeds, same, long_side=20)
    whole = labels_folder(place / "whole")
    make_labels(PseudoLabels(Threshold(0.5)), data, seeds, whole)
    assert hashes(same.path) == hashes(whole.path)  # a photograph that is small enough is left as it is
    with pytest.raises(InputError, match="long_side=0; give at least 1 pixel"):
        make_labels(PseudoLabels(Threshold(0.5)), data, seeds, same, long_side=0)


def test_maps_at_a_smaller_size_are_averages(made):
    _, seeds, _ = made
    seed = seeds.load("d")
    inner = seed.resize((7, 10))[:, 2:5, 2:8]
    halves = seed.maps.astype(np.float64)
    # bilinear with antialiasing: weights 1, 3, 3, 1 of four neighbours
    weights = np.array([1, 3, 3, 1]) / 8
    expected = np.zeros_like(inner, dtype=np.float64)
    for r in range(3):
        for c in range(6):
            part = halves[:, 2 * (r + 2) - 1 : 2 * (r + 2) + 3, 2 * (c + 2) - 1 : 2 * (c + 2) + 3]
            expected[:, r, c] = np.einsum("krc,r,c->k", part, weights, weights)
    np.testing.assert_allclose(inner, expected, atol=1e-5)


def test_walked_seeds_at_a_long_side(made):
    data, seeds, place = made
    for scale, size in ((1.0, (7, 10)), (0.25, (4, 5))):
        folder = SeedFolder(place / f"walked{scale}")
        folder.prepare({"classes": CLASSES})
        make_walked_seeds(Halved(), data, seeds, folder, dtype="float16", scale=scale, long_side=10)
        for name in ("a", "d"):
            before, after = seeds.load(name), folder.load(name)
            assert (after.size, after.classes, after.maps.shape[1:]) == (before.size, before.classes, size)
        if scale == 1:
            np.testing.assert_allclose(after.maps, before.resize((7, 10)) / 2, atol=1e-3)


def test_more_classes_than_a_label_picture_holds(made):
    data, seeds, place = made
    data.classes = tuple(f"class {c}" for c in range(1000))
    with pytest.raises(InputError, match="the data have 1000 classes, and label pictures can hold 254"):
        make_labels(PseudoLabels(Threshold(0.3)), data, seeds, LabelFolder(place / "labels"))
