"""The folder of seeds: what a file holds, what is refused, and whose settings a folder has."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from camplug.errors import InputError
from camplug.wsss.seeds import Seed, SeedFolder
from camplug.wsss.store.seed_folder import pack_maps

MAPS = torch.linspace(0, 1, 2 * 7 * 10).reshape(2, 7, 10)
SETTINGS = {"explainer": "FullyCAM", "scale": 1.0, "classes": ["cat", "dog"]}


def seed(dtype="uint8", scale=1.0):
    return Seed(pack_maps(MAPS, dtype, scale), (1, 4), (7, 10), np.array([0.5, -2], np.float32))


def shrunk(one, size):
    """A map [h,w] resized with a triangle that is as wide as the shrinking, in plain loops."""

    def rows(n, m):
        weights = np.zeros((m, n))
        for i in range(m):
            for j in range(n):
                weights[i, j] = max(0, 1 - abs(j + 0.5 - (i + 0.5) * n / m) / max(n / m, 1))
        return weights / weights.sum(1, keepdims=True)

    return rows(one.shape[0], size[0]) @ one @ rows(one.shape[1], size[1]).T


def test_values_by_hand():
    maps = torch.tensor([[[0.0, 0.1, 0.4999, 1.0]]])
    assert pack_maps(maps, "uint8", 1.0).tolist() == [[[0, 26, 127, 255]]]  # 25.5 rounds to even
    half = pack_maps(maps, "float16", 1.0)
    assert half.dtype == np.float16
    assert half.tolist() == [[[0.0, float(np.float16(0.1)), float(np.float16(0.4999)), 1.0]]]
    beyond = torch.tensor([[[-0.5, 1.5]]])  # never wrapped around
    assert pack_maps(beyond, "uint8", 1.0).tolist() == [[[0, 255]]]
    assert pack_maps(beyond, "float16", 1.0).tolist() == [[[0, 1]]]


@pytest.mark.parametrize(
    "size,scale,small",
    [
        ((7, 10), 0.25, (2, 3)),
        ((8, 12), 0.25, (2, 3)),
        ((375, 500), 0.25, (94, 125)),  # 1 + (side - 1) // 4, as IRN has it
        ((30, 10), 0.1, (3, 1)),  # 30 * .1 is a bit above 3
        ((3, 200), 0.01, (1, 2)),
        ((7, 10), 1.0, (7, 10)),
    ],
)
def test_sizes(size, scale, small):
    assert pack_maps(torch.rand(2, *size), "uint8", scale).shape == (2, *small)
    assert pack_maps(torch.zeros(0, *size), "uint8", scale).shape == (0, *small)


def test_smaller_maps():
    maps = torch.rand(2, 37, 50, generator=torch.Generator().manual_seed(1))
    expected = np.stack([shrunk(m, (10, 13)) for m in maps.double().numpy()])
    np.testing.assert_allclose(pack_maps(maps, "float16", 0.25).astype(float), expected, atol=6e-4)
    assert np.abs(pack_maps(maps, "uint8", 0.25) / 255 - expected).max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("name", ["a", "deep/er/a", "a.b", "ä ö"])
def test_save_and_load(tmp_path, dtype, name):
    folder, one = SeedFolder(tmp_path / "new"), seed(dtype)
    assert not folder.has_result(name)
    folder.save(name, one)
    assert folder.has_result(name)
    back = folder.load(name)
    assert (back.classes, back.size, back.maps.dtype.name) == ((1, 4), (7, 10), dtype)
    np.testing.assert_array_equal(back.maps, one.maps)
    np.testing.assert_array_equal(back.logits, one.logits)
    with np.load(folder.get_path(name), allow_pickle=False) as data:
        assert sorted(data.files) == ["classes", "logits", "made_of", "maps", "size"]


def test_full_size():
    whole = seed().to_full_size()
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, np.round(MAPS.numpy() * 255) / 255, atol=1e-6)
    assert (whole.min(), whole.max()) == (0, 1)
    small = Seed(np.array([[[0, 255]]], np.uint8), (0,), (1, 4), np.zeros(1, np.float32))
    np.testing.assert_allclose(small.to_full_size(), [[[0, 0.25, 0.75, 1]]])
    none = Seed(np.zeros((0, 2, 3), np.uint8), (), (8, 12), np.zeros(0, np.float32))
    assert none.to_full_size().shape == (0, 8, 12)


def rewritten(folder, **changes):
    """A seed's file with some arrays replaced, or left out where None."""
    folder.save("a", seed())
    with np.load(folder.get_path("a")) as data:
        arrays = {key: data[key] for key in data.files} | changes
    np.savez(folder.get_path("a"), **{key: value for key, value in arrays.items() if value is not None})


def test_files_that_are_no_seeds(tmp_path):
    folder = SeedFolder(tmp_path)
    with pytest.raises(InputError, match=r"there is no seed .*a\.npz'; run `camplug seeds` with this folder again\."):
        folder.load("a")
    folder.save("a", seed())
    whole = folder.get_path("a").read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2], whole[:-1]):
        folder.get_path("a").write_bytes(damaged)
        assert not folder.has_result("a"), "half a file counts as a seed"
        with pytest.raises(InputError, match="is no seed or damaged"):
            folder.load("a")
    folder.get_path("a").write_bytes(whole[:100] + b"\0\1\2\3" + whole[104:])
    with pytest.raises(InputError, match="is no seed or damaged"):
        folder.load("a")
    np.savez(folder.get_path("a"), maps=np.array([{"code": 1}], dtype=object), size=np.array([7, 10]))
    with pytest.raises(InputError, match="allow_pickle"):
        folder.load("a")
    folder.get_path("a").unlink()
    for changes in (
        {"maps": np.zeros((2, 7, 10))},  # float64
        {"maps": np.zeros((7, 10), np.uint8)},
        {"classes": np.array([1])},
        {"classes": np.array(1)},
        {"size": np.array([7, 10, 3])},
        {"logits": None},
    ):
        rewritten(folder, **changes)
        with pytest.raises(InputError, match="is no seed or damaged"):
            folder.load("a")


def test_settings_are_written_with_the_first_seed(tmp_path):
    folder = SeedFolder(tmp_path / "s")
    folder.prepare({"explainer": "CAM"})
    folder.prepare(SETTINGS)  # nothing was made, so the folder is nobody's
    assert list(folder.path.iterdir()) == []
    folder.save("a", seed())
    assert json.loads((folder.path / "settings.json").read_text()) == SETTINGS == folder.read_settings()
    SeedFolder(folder.path).prepare({**SETTINGS, "classes": ("cat", "dog"), "scale": 1})  # the same for JSON


def test_other_settings_are_refused_by_name(tmp_path):
    folder = SeedFolder(tmp_path)
    folder.prepare(SETTINGS)
    folder.save("a", seed())
    before = (tmp_path / "settings.json").read_bytes()
    with pytest.raises(InputError, match=r"other settings: scale differs \(scale: 1\.0 there, 0\.5 now\); --overwrite"):
        SeedFolder(tmp_path).prepare({**SETTINGS, "scale": 0.5})
    with pytest.raises(InputError, match=r"dtype, explainer differ \(dtype: None there, 'uint8' now\)"):
        SeedFolder(tmp_path).prepare({**SETTINGS, "explainer": "CAM", "dtype": "uint8"})
    assert (tmp_path / "settings.json").read_bytes() == before


def test_two_runs_that_start_at_once_do_not_mix(tmp_path):
    first, second = SeedFolder(tmp_path), SeedFolder(tmp_path)
    first.prepare(SETTINGS)
    second.prepare({**SETTINGS, "scale": 0.5})
    first.save("a", seed())
    with pytest.raises(InputError, match="scale differs"):
        second.save("b", seed(scale=0.5))
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "settings.json"]


def test_folders_that_cannot_be_had(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match=r"file' cannot be made \(File exists\)"):
        SeedFolder(tmp_path / "file").prepare(SETTINGS)
    with pytest.raises(InputError, match="cannot be made"):
        SeedFolder(tmp_path).save("file/a", seed())
    with pytest.raises(InputError, match=r"is no folder of seeds: it has no settings\.json"):
        SeedFolder(tmp_path).read_settings()
    for text, says in (("[1]", "holds no settings"), ("{", "cannot be read")):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(InputError, match=says):
            SeedFolder(tmp_path).prepare(SETTINGS)


def test_leftovers(tmp_path):
    folder = SeedFolder(tmp_path)
    folder.save("a", seed())
    for name in ("a.npz.12.part", "deep/er/b.npz.7.part", "deep/er/b.npz.8.part", "settings.json.9.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"PK")
    found = {name: sorted(p.name for p in parts) for name, parts in folder.find_leftovers().items()}
    assert found == {"a": ["a.npz.12.part"], "deep/er/b": ["b.npz.7.part", "b.npz.8.part"]}
    assert not folder.has_result("deep/er/b")
    assert SeedFolder(tmp_path / "none").find_leftovers() == {}
