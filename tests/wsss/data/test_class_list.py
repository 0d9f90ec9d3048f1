"""Lists of class names as other tools write them, and names that were meant as several."""

from __future__ import annotations

import warnings

import pytest

from camplug.errors import InputError
from camplug.wsss.data.class_list import check_class_names, check_separated, read_class_names


@pytest.mark.parametrize(
    "text",
    ["cat\ndog\n", "__ignore__\n_background_\ncat\ndog\n", "background\ncat\n\ndog\n", "Background\ncat\ndog"],
)
def test_background_and_ignore_at_the_beginning_are_no_classes(tmp_path, text):
    (tmp_path / "c.txt").write_text(text)
    assert read_class_names(tmp_path / "c.txt") == ("cat", "dog")


def test_the_background_elsewhere_is_refused(tmp_path):
    (tmp_path / "c.txt").write_text("cat\nbackground\ndog\n")
    with pytest.raises(InputError, match=r"c\.txt' has 'background' among the classes; it is no class"):
        read_class_names(tmp_path / "c.txt")
    (tmp_path / "c.txt").write_text("background\n")
    with pytest.raises(InputError, match="has 0 classes"):
        read_class_names(tmp_path / "c.txt")


def test_names_that_differ_by_case_are_noted():
    with pytest.warns(UserWarning, match="x has the classes 'Cat' and 'cat', which differ by case only"):
        check_class_names(["Cat", "dog", "cat"], "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_class_names(["Cat", "dog"], "x")


@pytest.mark.parametrize("name", ["cat dog", "cat,dog", "cat|dog", "cat/dog", "cat & dog", "dog+cat"])
def test_several_labels_in_one(name):
    with pytest.raises(InputError, match=r"beside '(cat|dog)' and '(cat|dog)'; separate labels by ';'"):
        check_separated(["cat", "dog", name], "x")


def test_a_bar_alone_is_asked_for_and_a_space_is_not():
    with pytest.raises(InputError, match=r"x has a label 'cat\|dog'; separate"):
        check_separated(["cat|dog"], "x")
    check_separated(["potted plant", "plant"], "x")
