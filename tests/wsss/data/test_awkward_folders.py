"""Class folders with subfolders, hidden and empty ones, and tables of labels that are cut off."""

from __future__ import annotations

import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data import open_data


def write_photos(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(root / name)


def test_class_folders_have_subfolders(tmp_path):
    write_photos(tmp_path, "cat/a.png", "cat/day1/b.png", "bird/far/away/c.png", "cat/._a.png", "cat/.cache/d.png")
    data = open_data(f"folder:{tmp_path}", None)
    assert sorted(data.classes) == ["bird", "cat"]
    assert sorted(data.ids) == ["bird/far/away/c", "cat/a", "cat/day1/b"]


def test_an_empty_class_folder_is_told(tmp_path):
    write_photos(tmp_path, "cat/a.png", "dog/b.png")
    (tmp_path / "bird").mkdir()
    with pytest.warns(UserWarning, match="bird' of a class holds no photograph"):
        assert sorted(open_data(f"folder:{tmp_path}", None).classes) == ["cat", "dog"]


def test_an_unclosed_quote_is_refused(tmp_path):
    write_photos(tmp_path, "images/a.png", "images/b.png")
    (tmp_path / "labels.csv").write_text('image,labels\na.png,"cat\nb.png,dog\n')
    with pytest.raises(InputError, match="is not a row of a table"):
        open_data(f"folder:{tmp_path}", None)


def test_class_names_are_printable(tmp_path):
    write_photos(tmp_path, "images/a.png")
    (tmp_path / "labels.json").write_text('{"a.png": ["cat\\u0000"]}')
    with pytest.raises(InputError, match="holds line breaks or control characters"):
        open_data(f"folder:{tmp_path}", None)
