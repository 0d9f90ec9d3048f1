"""Class names: where they come from, and which class a name means."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torchvision
from torch import nn

from camplug.errors import TargetError
from camplug.models.class_names import find_class_names, find_index, list_imagenet_names

NAMES = ["Egyptian cat", "tiger cat", "tabby, tabby cat", "great white shark, white shark", "T-shirt", "shark"]


class Net(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)


# ---- where they come from


def test_given_labels_come_first():
    model = Net()
    model.classes = ["a", "b", "c"]
    assert find_class_names(model, 3, ["x", "y", "z"]) == ["x", "y", "z"]
    assert find_class_names(model, 3, ("x", "y", "z")) == ["x", "y", "z"]
    assert find_class_names(model, 3, {2: "z", 0: "x", 1: "y"}) == ["x", "y", "z"]


def test_labels_of_another_length_are_refused():
    with pytest.raises(TargetError, match="class_names= holds 2 names, but the model has 3 classes"):
        find_class_names(Net(), 3, ["x", "y"])


@pytest.mark.parametrize("attribute", ["labels", "class_names", "classes"])
def test_the_models_own(attribute):
    model = Net()
    setattr(model, attribute, ["a", "b", "c"])
    assert find_class_names(model, 3) == ["a", "b", "c"]
    assert find_class_names(nn.DataParallel(model), 3) == ["a", "b", "c"]
    assert find_class_names(model, 4) is None  # left over from another head


def test_id2label():
    model = Net()
    model.config = SimpleNamespace(id2label={0: "a", 1: "b", 2: "c"})
    assert find_class_names(model, 3) == ["a", "b", "c"]


def test_names_of_any_number_without_a_count():
    model = nn.Linear(2, 2)
    assert find_class_names(model) is None
    model.class_names = {1: "dog", 0: "cat"}
    assert find_class_names(model) == ["cat", "dog"]
    model.class_names = ["LABEL_0", "LABEL_1"]
    assert find_class_names(model) is None
    assert find_class_names(model, 2) is None
    assert find_class_names(model, class_names=["a", "b"]) == ["a", "b"]
    model.class_names = [3, 4]
    assert find_class_names(model) is None


def test_imagenet_names_belong_to_models_of_timm_and_torchvision():
    small = torchvision.models.SqueezeNet("1_1")
    assert find_class_names(small, 1000) == list_imagenet_names()
    assert find_class_names(timm.create_model("test_resnet", pretrained=False), 1000) == list_imagenet_names()
    assert find_class_names(small, 10) is None
    assert find_class_names(Net(), 1000) is None  # somebody's own 1000 classes may be others


def test_imagenet_names_are_in_order():
    names = list_imagenet_names()
    assert len(names) == 1000
    assert (names[0], names[281], names[285], names[999]) == ("tench", "tabby", "Egyptian cat", "toilet tissue")


# ---- which class a name means


@pytest.mark.parametrize(
    "name,index",
    [
        ("Egyptian cat", 0),
        ("  egyptian CAT ", 0),
        ("egyptian", 0),  # the only one holding the word
        ("cat egyptian", 0),
        ("tabby", 2),  # a synonym
        ("tabby cat", 2),
        ("white shark", 3),
        ("tabby, tabby cat", 2),
        ("shark", 5),  # the whole name, though another class holds the word
        ("t-shirt", 4),
        ("shirt", 4),
        ("3", 3),
        (" 0 ", 0),
    ],
)
def test_found(name, index):
    assert find_index(name, NAMES, len(NAMES)) == index


def test_several_fit():
    with pytest.raises(TargetError) as told:
        find_index("cat", NAMES, len(NAMES))
    assert str(told.value) == (
        "'cat' fits several classes: Egyptian cat (0), tiger cat (1), tabby, tabby cat (2); give one of these names or "
        "its index."
    )


def test_one_name_for_two_classes():
    with pytest.raises(TargetError, match=r"'crane' fits several classes: crane \(0\), crane, derrick \(2\); give"):
        find_index("crane", ["crane", "heron", "crane, derrick"], 3)


def test_many_fit():
    with pytest.raises(TargetError, match=r"terrier.*, \.\.\.; give one"):
        find_index("terrier", list_imagenet_names(), 1000)


@pytest.mark.parametrize("typo,hint", [("tabbi", r"tabby \(2\)"), ("egiptian cat", r"Egyptian cat \(0\)")])
def test_the_nearest_are_suggested(typo, hint):
    with pytest.raises(TargetError, match=rf"no class is called '{typo}'; did you mean (?i:.*{hint})"):
        find_index(typo, NAMES, len(NAMES))


def test_nothing_near():
    with pytest.raises(TargetError, match="no class is called 'zzzz'; give an index from 0 to 5"):
        find_index("zzzz", NAMES, len(NAMES))
    for text in ("", " ", "²"):  # "²".isdigit() holds
        with pytest.raises(TargetError, match="no class is called"):
            find_index(text, ["a"], 1)


def test_numbers_outside_and_without_names():
    with pytest.raises(TargetError, match="class 6 is outside the model's 6 classes; allowed are 0 to 5"):
        find_index("6", NAMES, 6)
    assert find_index("6", None, 7) == 6
    with pytest.raises(
        TargetError, match="the model has no class names, so 'cat' cannot be found; give class_names= or an index"
    ):
        find_index("cat", None, 7)
