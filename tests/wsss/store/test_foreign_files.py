"""Files that camplug has not made are never replaced or removed by results."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.pseudo import LabelFolder

LABELS = np.zeros((4, 4), np.uint8)


def prepare(path, classes, **options):
    return LabelFolder(path).prepare({"classes": classes}, **options)


def test_a_picture_of_somebody_else_is_not_replaced(tmp_path):
    Image.fromarray(LABELS + 7).save(tmp_path / "a.png")
    folder = prepare(tmp_path, ["cat"])
    folder.save("b", LABELS)
    with pytest.raises(InputError, match=r"a\.png' is there and was not made by camplug"):
        folder.save("a", LABELS)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == (LABELS + 7).tolist()


def test_a_half_written_file_is_replaced(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    folder = prepare(tmp_path, ["cat"])
    folder.save("a", LABELS)
    assert folder.load("a").tolist() == LABELS.tolist()


def test_other_settings_remove_results_only(tmp_path):
    prepare(tmp_path, ["cat"]).save("a", LABELS)
    Image.fromarray(LABELS).save(tmp_path / "photo.png")
    prepare(tmp_path, ["dog"], overwrite=True).save("b", LABELS)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["b.png", "photo.png"]


def test_only_own_results_are_removed(tmp_path):
    folder = prepare(tmp_path, ["cat"])
    folder.save("a", LABELS)
    Image.fromarray(LABELS).save(tmp_path / "photo.png")
    for name in ("a", "photo", "missing"):
        folder.remove(name)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["photo.png"]
