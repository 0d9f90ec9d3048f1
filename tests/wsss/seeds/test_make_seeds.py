"""Making seeds: their values against the explainer's own maps, going on after a stop, and images that fail."""

from __future__ import annotations

import hashlib
import os
import threading

import numpy as np
import pytest
import torch
from tiny_seeds import CONFIG, Tiny, write_photos

import camplug
from camplug.errors import CamplugError, InputError, ModelError
from camplug.images.photo import read_photo
from camplug.images.preprocess import Preprocess
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import SeedFolder, make_seeds


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Tiny().eval()


SCENES = Scenes(5, (48, 64), classes=6)


def expected(explainer, photo, classes):
    """The explainer's own maps at the photograph's size, and the logits."""
    x, _ = Preprocess((40, 40), CONFIG["mean"], CONFIG["std"])(photo)
    x = x.to(explainer.model.fc.weight.device)
    maps = explainer.maps(x[None], [list(classes)], size=(photo.height, photo.width))[0]
    return maps.cpu().numpy(), explainer.model(x[None])[0].detach().cpu().numpy()


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.path.rglob("*.npz")}


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize(
    "text", ["FullyCAM", "CAM", "MultiView(FullyCAM(channel_norm=False), (0.5, 1))", "Compete(FullyCAM, CAM)"]
)
def test_a_seed_holds_the_maps_of_the_explainer(tmp_path, model, text, dtype, device):
    explainer, folder = camplug.create(text, model.to(device)), SeedFolder(tmp_path)
    report = make_seeds(explainer, SCENES, folder, dtype=dtype)
    assert (report.made, report.found, report.broken) == (5, 0, [])
    assert report.bytes == sum(p.stat().st_size for p in tmp_path.glob("*.npz"))
    for i, name in enumerate(SCENES.ids):
        maps, logits = expected(explainer, SCENES.photo(i), SCENES.labels(i))
        seed = folder.load(name)
        assert (seed.classes, seed.size, seed.maps.shape[1:]) == (SCENES.labels(i), (48, 64), (48, 64))
        wanted = np.rint(maps * np.float32(255)).astype(np.uint8) if dtype == "uint8" else maps.astype(np.float16)
        apart = 0.0 if device.type != "cuda" else 1.0 if dtype == "uint8" else 2**-10  # sums come in any order there
        np.testing.assert_allclose(seed.maps.astype(float), wanted.astype(float), atol=apart, rtol=0)
        np.testing.assert_allclose(seed.logits, logits, atol=1e-5)
        assert np.abs(seed.to_full_size() - maps).max() <= (0.5 / 255 if dtype == "uint8" else 2**-11) + 1e-6


def test_small_seeds(tmp_path, model, device):
    explainer, folder = camplug.FullyCAM(model.to(device)), SeedFolder(tmp_path)
    make_seeds(explainer, SCENES, folder, dtype="float16", scale=0.25)
    maps, _ = expected(explainer, SCENES.photo(1), SCENES.labels(1))
    seed = folder.load(SCENES.ids[1])
    assert (seed.maps.shape[1:], seed.size) == ((12, 16), (48, 64))
    # four pixels are one: a triangle over the eight around the middle
    weights = np.array([1, 3, 5, 7, 7, 5, 3, 1]) / 32
    inner = (maps[:, 18:26, 30:38] * np.outer(weights, weights)).sum((1, 2))
    np.testing.assert_allclose(seed.maps[:, 5, 8], inner, atol=1e-3)
    assert seed.to_full_size().shape[1:] == (48, 64)


def test_images_without_labels_and_folders_in_names(tmp_path, model):
    labels = {"x/1.png": ["b", "f"], "x/2.png": [], "y/1.png": ["c"]}
    data, folder = write_photos(tmp_path, labels), SeedFolder(tmp_path / "seeds")
    report = make_seeds(camplug.GradCAM(model, "features.2"), data, folder)
    assert (report.made, model.runs) == (3, 2)  # no label, no forward pass
    assert [folder.load(name).classes for name in ("x/1", "x/2", "y/1")] == [(1, 5), (), (2,)]
    assert folder.load("x/2").maps.shape == (0, 44, 60)
    maps, _ = expected(camplug.GradCAM(model), read_photo(tmp_path / "images" / "x" / "1.png"), (1, 5))
    np.testing.assert_array_equal(folder.load("x/1").maps, np.rint(maps * np.float32(255)).astype(np.uint8))
    make_seeds(camplug.GradCAM(model), data, SeedFolder(tmp_path / "small"), scale=0.5)
    assert SeedFolder(tmp_path / "small").load("x/2").maps.shape == (0, 22, 30)


def test_maps_are_never_wrapped_around(tmp_path, model):
    folder, raw = SeedFolder(tmp_path), camplug.FullyCAM(model, normalize=None)
    make_seeds(raw, SCENES, folder)
    for i, name in enumerate(SCENES.ids):
        maps, _ = expected(camplug.FullyCAM(model), SCENES.photo(i), SCENES.labels(i))
        got = folder.load(name).maps.astype(int)
        assert np.abs(got - np.rint(maps * 255)).max() <= 1
        assert (got.max((1, 2)) == 255).all()


def test_a_transform_that_cuts(tmp_path, model, device):
    def middle(photo):
        x, _ = Preprocess((40, 40), keep_aspect=False)(photo.crop((16, 8, 48, 40)))
        return x

    folder = SeedFolder(tmp_path)
    make_seeds(camplug.CAM(model.to(device), preprocess=middle), SCENES, folder)
    seed = folder.load(SCENES.ids[0])
    outside = np.ones((48, 64), bool)
    outside[8:40, 16:48] = False
    assert seed.maps[:, outside].max() == 0
    explanation = camplug.CAM(model.to(device), preprocess=middle).explain(SCENES.photo(0), list(SCENES.labels(0)))
    np.testing.assert_array_equal(seed.maps, np.rint(explanation.maps.numpy() * np.float32(255)).astype(np.uint8))


def test_photographs_are_read_ahead_and_seeds_written_behind(tmp_path, model, device):
    """The model waits for neither: the next photograph is read, and the last seed not yet written, while it works."""
    data, folder = Scenes(4, (48, 64), classes=6), SeedFolder(tmp_path)
    others = set(threading.enumerate())  # torch's compiler, for one, keeps threads of its own
    read, ran = ([threading.Event() for _ in range(6)] for _ in range(2))
    photo, save, told = data.photo, folder.save, []

    def reading(i):
        assert threading.current_thread() is not threading.main_thread()
        found = photo(i)
        read[i].set()
        return found

    def running(module, args):
        i = next(i for i, event in enumerate(ran) if not event.is_set())
        assert i == 3 or read[i + 1].wait(60)
        ran[i].set()

    def saving(name, seed, made_of):
        assert threading.current_thread() is not threading.main_thread()
        i = data.ids.index(name)
        assert i > 1 or ran[i + 1].wait(60)
        save(name, seed)

    explainer = camplug.GradCAM(model.to(device), "features.2")
    explainer.explain(photo(0), 0)  # what is found out about a model once runs it, too
    data.photo, folder.save = reading, saving
    model.register_forward_pre_hook(running)
    report = make_seeds(explainer, data, folder, batch=1, step=lambda r: told.append(r.made))
    assert (report.made, told) == (4, [1, 2, 3, 4])
    assert report.bytes == sum(p.stat().st_size for p in tmp_path.glob("*.npz"))
    assert not [t for t in set(threading.enumerate()) - others if "ThreadPool" in t.name]


def test_what_is_made_is_written_when_a_later_image_ends_the_run(tmp_path):
    folder, moody = SeedFolder(tmp_path), Moody(KeyboardInterrupt(), 4).eval()
    with pytest.raises(KeyboardInterrupt):
        make_seeds(camplug.GradCAM(moody, "features.2"), SCENES, folder)
    assert [folder.has_result(name) for name in SCENES.ids] == [True, True, True, False, False]
    assert not list(tmp_path.glob("*.part"))


def test_a_place_that_can_no_longer_be_written_ends_the_run(tmp_path, model):
    folder, save = SeedFolder(tmp_path), SeedFolder.save

    def full(name, seed, made_of):
        if name == SCENES.ids[1]:
            raise InputError("the disk is full.")
        save(folder, name, seed, made_of)

    folder.save = full
    with pytest.raises(InputError, match="the disk is full"):
        make_seeds(camplug.CAM(model), SCENES, folder)
    assert folder.has_result(SCENES.ids[0])


# ---- going on


def test_what_is_there_is_left_alone(tmp_path, model):
    folder, other = SeedFolder(tmp_path / "a"), SeedFolder(tmp_path / "b")
    make_seeds(camplug.CAM(model), SCENES, folder)
    make_seeds(camplug.CAM(model), SCENES, other)
    assert hashes(folder) == hashes(other)
    folder.get_path(SCENES.ids[2]).unlink()
    folder.get_path(SCENES.ids[3]).write_bytes(folder.get_path(SCENES.ids[3]).read_bytes()[:-30])  # not whole
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.path.glob("*.npz")}
    model.runs, steps = 0, []
    report = make_seeds(camplug.CAM(model), SCENES, folder, step=lambda r: steps.append((r.made, r.found)))
    assert (report.made, report.found, model.runs) == (2, 3, 2)
    assert steps == [(0, 1), (0, 2), (1, 2), (2, 2), (2, 3)]
    assert hashes(folder) == hashes(other)
    after = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.path.glob("*.npz")}
    assert {k for k in before if before[k] == after[k]} == {f"{SCENES.ids[i]}.npz" for i in (0, 1, 4)}


def test_leftovers_of_a_killed_run_are_removed(tmp_path, model):
    folder = SeedFolder(tmp_path)
    folder.prepare({})
    (tmp_path / f"{SCENES.ids[1]}.npz.99999.part").write_bytes(b"PK")
    (tmp_path / "other.npz.99999.part").write_bytes(b"PK")  # not of this data
    assert make_seeds(camplug.CAM(model), SCENES, folder).made == 5
    assert sorted(p.name for p in tmp_path.glob("*.part")) == ["other.npz.99999.part"]


def test_shares(tmp_path, model):
    whole, parts = SeedFolder(tmp_path / "whole"), SeedFolder(tmp_path / "parts")
    make_seeds(camplug.FullyCAM(model), SCENES, whole)
    made = [make_seeds(camplug.FullyCAM(model), SCENES, parts, shard=(r, 3)).made for r in (2, 0, 1)]
    assert made == [1, 2, 2]
    assert hashes(whole) == hashes(parts)


# ---- what fails


class Moody(Tiny):
    """Fails in its n-th run."""

    def __init__(self, error, n):
        super().__init__()
        self.error, self.n = error, n

    def forward(self, x):
        if self.runs + 1 == self.n:
            self.runs += 1
            raise self.error
        return super().forward(x)


@pytest.mark.parametrize(
    "error,says",
    [
        (RuntimeError("out of memory\nmuch text"), "RuntimeError: out of memory"),
        (KeyError("key"), "KeyError: 'key'"),
        (AssertionError(), "AssertionError"),
        (ModelError("one size only."), "one size only."),
    ],
)
def test_a_failing_image_is_listed_and_made_later(tmp_path, error, says):
    torch.manual_seed(3)
    folder, moody = SeedFolder(tmp_path), Moody(error, 3).eval()
    report = make_seeds(camplug.GradCAM(moody, "features.2"), SCENES, folder)
    assert (report.made, report.broken) == (4, [(SCENES.ids[2], says)])
    assert not folder.has_result(SCENES.ids[2])
    report = make_seeds(camplug.GradCAM(moody, "features.2"), SCENES, folder)
    assert (report.made, report.found, report.broken) == (1, 4, [])


def test_what_stops_the_first_image_stops_the_run(tmp_path):
    folder = SeedFolder(tmp_path)
    folder.prepare({"a": 1})
    with pytest.raises(RuntimeError, match="nothing works"):
        make_seeds(camplug.GradCAM(Moody(RuntimeError("nothing works"), 1).eval()), SCENES, folder)
    with pytest.raises(ModelError, match="size"):
        make_seeds(camplug.GradCAM(Moody(ModelError("one size only"), 1).eval()), SCENES, folder)
    assert os.listdir(tmp_path) == []


def test_a_broken_photograph_first(tmp_path, model):
    data = write_photos(tmp_path, {"1.png": ["a"], "2.png": ["b"], "3.png": ["c"]})
    whole = (tmp_path / "images" / "1.png").read_bytes()
    (tmp_path / "images" / "1.png").write_bytes(whole[:200])
    folder = SeedFolder(tmp_path / "seeds")
    report = make_seeds(camplug.CAM(model), data, folder)
    assert (report.made, [name for name, _ in report.broken]) == (2, ["1"])
    assert "damaged" in report.broken[0][1]
    (tmp_path / "images" / "1.png").write_bytes(whole)
    report = make_seeds(camplug.CAM(model), data, folder)
    assert (report.made, report.found, report.broken) == (1, 2, [])


@pytest.mark.parametrize("classes,has", [(7, "7 classes"), (1000, "1000 classes")])
def test_a_model_of_other_classes(tmp_path, classes, has):
    says = f"the model has {has} and the data has 6 \\(striped disc, dotted square, ringed triangle, ...\\)"
    folder = SeedFolder(tmp_path)
    with pytest.raises(CamplugError, match=says):
        make_seeds(camplug.CAM(Tiny(classes).eval()), SCENES, folder)
    assert os.listdir(tmp_path) == []
    make_seeds(camplug.CAM(Tiny().eval()), SCENES, folder)
    folder.get_path(SCENES.ids[4]).unlink()
    with pytest.raises(CamplugError, match=says):  # no image's fault, however many are there
        make_seeds(camplug.CAM(Tiny(classes).eval()), SCENES, folder)


@pytest.mark.parametrize(
    "options,says",
    [
        ({"dtype": "float64"}, "dtype='float64'; allowed are 'uint8', 'float16'"),
        ({"scale": 0}, "scale=0; give more than 0 and at most 1"),
        ({"scale": 1.5}, "scale=1.5"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"shard": (2, 2)}, r"shard=\(2, 2\); give \(r, n\)"),
        ({"shard": (-1, 2)}, "shard="),
        ({"shard": (0, 0)}, "shard="),
    ],
)
def test_options(tmp_path, model, options, says):
    with pytest.raises(InputError, match=says):
        make_seeds(camplug.CAM(model), SCENES, SeedFolder(tmp_path / "s"), **options)
    assert not (tmp_path / "s").exists()
