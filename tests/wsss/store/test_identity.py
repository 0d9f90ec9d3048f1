"""Digests of files, weights and images: the same for the same content, wherever it lies and whenever it was written."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import voc_tree
from torch import nn

from camplug.errors import InputError
from camplug.wsss.class_names import RenumberedData
from camplug.wsss.data import VOC, Folder, Scenes
from camplug.wsss.recipe.data import View
from camplug.wsss.store import identity
from camplug.wsss.store.identity import (
    HASHES,
    Inputs,
    hash_file,
    hash_photographs,
    hash_weights,
    make_digest,
    make_digest_table,
)

OLD = 10**18  # a time stamp in 2001, in ns


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAMPLUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch):
    """Files count as old enough at once."""
    monkeypatch.setattr(identity, "RACY", -1)


def hashed(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entries(cache):
    with sqlite3.connect(cache / HASHES) as database:
        return dict(database.execute("SELECT path, sha256 FROM files"))


def test_a_file_is_read_once(tmp_path, cache, settled, monkeypatch):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    assert hash_file(file) == hashed(file)
    assert entries(cache) == {str(file): hashed(file)}
    monkeypatch.setattr(identity.hashlib, "file_digest", None)  # reading would fail
    assert hash_file(file) == hashed(file)


def test_another_content_under_the_same_size_and_time(tmp_path, settled):
    file = tmp_path / "a.bin"
    for content in (b"one", b"two", b"six"):
        file.write_bytes(content)
        os.utime(file, ns=(OLD, OLD))  # as copying programs that keep times do
        assert hash_file(file) == hashed(file)


def test_a_file_that_may_still_change_is_not_remembered(tmp_path, cache):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    assert hash_file(file) == hashed(file)
    assert entries(cache) == {}


@pytest.mark.parametrize("broken", ["a file in the way", "no database"])
def test_without_a_place_every_file_is_read(tmp_path, cache, settled, broken):
    if broken == "no database":
        cache.mkdir()
        (cache / HASHES).write_bytes(b"something else" * 100)
    else:
        cache.write_text("kept")
    file = tmp_path / "a.bin"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        assert hash_file(file) == hashed(file)
    with pytest.raises(FileNotFoundError):
        hash_file(tmp_path / "none")


def test_threads_and_processes_share_it(tmp_path, cache, settled):
    files = [tmp_path / f"{i}.bin" for i in range(40)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]))
    wanted = [hashed(file) for file in files]
    with ThreadPoolExecutor(4) as threads, ProcessPoolExecutor(2) as processes:
        # the processes first: one that is forked while threads are hashing inherits OpenSSL's locks closed
        found = [pool.map(hash_file, files) for pool in (processes, threads)]
        assert [list(f) for f in found] == [wanted, wanted]
    assert set(entries(cache).values()) <= set(wanted)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("CAMPLUG_CACHE")
    monkeypatch.setattr(identity.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert identity.get_cache_folder() == tmp_path / "camplug"


def test_weights():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = hash_weights(model)
    assert hash_weights(nn.Sequential(*model)) == before
    model[1].num_batches_tracked += 1
    counted = hash_weights(model)
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-6
    assert len({before, counted, hash_weights(model)}) == 3


def folder(root, shift=0, labels=("cat", "dog"), ending="png"):
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(shift)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(root / "images" / f"{i}.{ending}")
        Image.fromarray(np.full((6, 8), i, np.uint8)).save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(labels))
    (root / "labels.json").write_text(json.dumps({f"{i}.{ending}": [labels[0]] for i in range(2)}))
    return Folder(root)


def digests(data, i=0):
    return data.photo_digest(i), data.label_digest(i), data.mask_digest(i)


def test_a_folder_is_known_by_its_content(tmp_path):
    one, same, other = folder(tmp_path / "a"), folder(tmp_path / "b"), folder(tmp_path / "c", shift=1)
    assert digests(one) == digests(same)
    assert [a == b for a, b in zip(digests(one), digests(other), strict=True)] == [False, True, True]
    assert hash_photographs(one) == hash_photographs(same) != hash_photographs(other)
    renamed = folder(tmp_path / "d", labels=("dog", "cat"))
    assert renamed.labels(0) == one.labels(0)
    assert renamed.label_digest(0) != one.label_digest(0)  # by name, not by number
    (tmp_path / "a" / "classes.txt").write_text("dog\ncat\n")
    assert Folder(tmp_path / "a").labels(0) == (1,)
    assert Folder(tmp_path / "a").label_digest(0) == one.label_digest(0)
    Image.fromarray(np.full((6, 8), 2, np.uint8)).save(tmp_path / "b" / "masks" / "0.png")
    assert same.mask_digest(0) != one.mask_digest(0)
    (tmp_path / "a" / "images" / "1.png").unlink()
    with pytest.raises(InputError, match=r"the photograph .*1\.png' cannot be read"):
        one.photo_digest(1)
    assert make_digest_table(one.ids, one.photo_digest) == {"0": one.photo_digest(0), "1": "missing"}


def test_another_order_of_classes_has_the_same_photographs_and_labels(tmp_path):
    one = folder(tmp_path / "a")
    turned, other = RenumberedData(one, ["dog", "cat"]), RenumberedData(folder(tmp_path / "b"), ["dog", "cat"])
    assert (turned.labels(0), one.labels(0)) == ((1,), (0,))
    assert digests(turned) == digests(other)
    assert digests(turned)[:2] == digests(one)[:2]
    Image.fromarray(np.full((6, 8), 2, np.uint8)).save(tmp_path / "b" / "masks" / "0.png")
    assert digests(other)[2] != digests(turned)[2]


def test_voc_and_a_folder_of_the_same_photographs(tmp_path):
    root = voc_tree(tmp_path)
    voc = VOC(root, "train")
    assert voc.photo_digest(0) == hashed(root / "JPEGImages" / f"{voc.ids[0]}.jpg")[:16]
    assert voc.label_digest(0) == make_digest(sorted(voc.classes[c] for c in voc.labels(0)))
    assert voc.mask_digest(0) == hashed(root / "SegmentationClass" / f"{voc.ids[0]}.png")[:16]


def test_scenes_are_known_by_their_numbers(monkeypatch):
    def drawn(self, i):
        raise AssertionError("a scene was drawn")

    class Relabelled(Scenes):
        def labels(self, i):
            return (0,)

    plain = Scenes(4, (32, 32)).photo_digest(2)
    other = Relabelled(4, (32, 32))
    assert other.photo_digest(2) == plain
    assert other.label_digest(2) == other.label_digest(1) == make_digest([other.classes[0]])
    monkeypatch.setattr(Scenes, "_get_scene", drawn)
    assert Scenes(9, (32, 32)).photo_digest(2) == plain  # count does not matter
    for changed in (Scenes(4, (32, 32), seed=1), Scenes(4, (32, 48)), Scenes(4, (32, 32), light=0.1)):
        assert changed.photo_digest(2) != plain
    assert View(Scenes(4, (32, 32)), False, [2]).photo_digest(0) == plain
    with pytest.raises(InputError, match="masks are opened by stages that score"):
        View(Scenes(4, (32, 32)), False).mask_digest(0)


def test_inputs_say_what_differs():
    one = Inputs({"photographs": {"a": "1", "b": "2", "c": "3"}, "labels": {"a": "x", "b": "y", "c": "z"}})

    def other(**tables):
        return Inputs({**one.tables, **tables})

    assert one.describe_differences(one) == []
    assert other(labels={"a": "x", "b": "y", "c": "q"}).describe_differences(one) == ["1 of 3 images has other labels"]
    changed = other(photographs={"a": "7", "b": "8", "c": "3"})
    assert changed.describe_differences(one) == ["2 of 3 images have other photographs"]
    assert changed.make_digests()["labels"] == one.make_digests()["labels"]
    assert changed.make_digests()["photographs"] != one.make_digests()["photographs"]
    turned = Inputs({"photographs": {"b": "2", "a": "1", "c": "3"}, "labels": one.tables["labels"]})
    assert turned.describe_differences(one) == ["the images are in another order"]
