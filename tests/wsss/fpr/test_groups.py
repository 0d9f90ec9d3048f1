"""Super-classes: whole, disjoint, and what they leave usable."""

from __future__ import annotations

import pytest

from camplug.errors import InputError
from camplug.wsss.data import VOC_CLASSES
from camplug.wsss.fpr import COCO_GROUPS, VOC_GROUPS, get_group_numbers, is_usable
from camplug.wsss.fpr.groups import describe_unusable


def test_voc_groups_hold_every_class_once():
    assert sorted(name for names in VOC_GROUPS.values() for name in names) == sorted(VOC_CLASSES)
    numbers = get_group_numbers(VOC_CLASSES, "voc")
    assert [numbers.count(g) for g in range(4)] == [1, 6, 7, 6]


def test_coco_groups_hold_80_classes_once():
    names = [name for names in COCO_GROUPS.values() for name in names]
    assert len(COCO_GROUPS) == 12
    assert len(names) == len(set(names)) == 80
    assert [len(names) for names in COCO_GROUPS.values()] == [1, 8, 5, 10, 5, 10, 7, 10, 6, 6, 5, 7]


def test_usable_in_voc():
    numbers = get_group_numbers(VOC_CLASSES, "voc")
    at = VOC_CLASSES.index
    assert not is_usable(at("car"), [at("bus")], numbers)
    assert not is_usable(at("car"), [at("cat"), at("bus")], numbers)
    assert is_usable(at("car"), [at("cat"), at("person")], numbers)
    assert is_usable(at("car"), [], numbers)
    assert not any(is_usable(at("person"), [c], numbers) for c in range(20))


def test_no_groups_keep_every_negative():
    numbers = get_group_numbers(["a", "b"], None)
    assert numbers == [-1, -1]
    assert is_usable(0, [1], numbers)


def test_a_group_with_one_of_its_classes_in_the_data_has_no_usable_negatives():
    assert not is_usable(0, [1], get_group_numbers(["car", "cat"], "voc"))


def test_own_groups():
    assert get_group_numbers(["b", "c", "a"], {"one": ["a", "b"], "two": ["c", "d"]}) == [0, 1, 0]


def test_classes_without_negatives_are_described_by_frequency():
    """The labels are 4 + 8 + 4 + 0 = 16; dog and cat have 12 of them, bird is shown by no image."""
    text = describe_unusable(["cat", "dog", "car", "bird"], [4, 8, 4, 0], [False, False, True, False])
    assert text.startswith("pixel rectification leaves out dog, cat (75 % of the labels): their maps")
    assert "groups none" in text
    assert describe_unusable(["cat", "bird"], [4, 0], [True, False]) == ""
    many = describe_unusable(list("abcdef"), [1, 2, 3, 4, 5, 6], [False] * 6)
    assert "leaves out f, e, d, c, b ... (100 % of the labels)" in many


@pytest.mark.parametrize(
    "classes, groups, sentence",
    [
        (["cat"], "vco", r"there are no groups 'vco' \(did you mean 'voc'\?\); give 'voc' or 'coco', a mapping"),
        (["cat"], "xyzzy", r"there are no groups 'xyzzy'; give"),
        (["potted plant"], "voc", r"class 'potted plant' is in no group \(did you mean 'pottedplant'\?\); every class"),
        (["cat"], {"g": ["cat"], "h": ["cat"]}, r"class 'cat' is in two groups, 'g' and 'h'; leave it in one"),
    ],
)
def test_refused(classes, groups, sentence):
    with pytest.raises(InputError, match=sentence):
        get_group_numbers(classes, groups)
