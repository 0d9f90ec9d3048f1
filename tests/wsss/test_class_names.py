"""Classes are matched by name: data in another order gives the same results, other names are refused."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trainable
from numpy.testing import assert_array_equal

import camplug
from camplug.errors import InputError
from camplug.metrics import miou
from camplug.wsss.class_names import RenumberedData, match_classes
from camplug.wsss.classifier import build_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.deeplab import Segmenter, build_deeplab, make_predictions
from camplug.wsss.pseudo import LabelFolder, PseudoLabels, Threshold, make_labels, make_walked_seeds
from camplug.wsss.recipe.run import match_lists
from camplug.wsss.seeds import SeedFolder, make_seeds, score_labels, score_seeds
from camplug.wsss.train import read_labels

DATA = Scenes(6, (48, 48), seed=2, classes=3)
NAMES = list(DATA.classes)
OTHER = RenumberedData(DATA, [NAMES[2], NAMES[0], NAMES[1]])
MORE = RenumberedData(DATA, ["ghost", NAMES[1], NAMES[0], NAMES[2]])


def classifier(classes=NAMES):
    """A classifier with a head of random weights, each class's its own whatever the order."""
    network = build_classifier(trainable.net(), list(classes)).eval()
    with torch.no_grad():
        for row, name in enumerate(classes):
            generator = torch.Generator().manual_seed(sum(name.encode()))
            network.head.weight[row] = torch.randn(network.head.weight[row].shape, generator=generator)
    return network


def seeds(path, model, data):
    folder = SeedFolder(path)
    folder.prepare({"classes": list(data.classes)})
    assert make_seeds(camplug.CAM(model), data, folder).broken == []
    return folder


def best(folder, data):
    sweep, broken = score_seeds(folder, data)
    assert broken == []
    return max(miou(matrix, "all") for matrix in sweep.matrices)


def test_matching():
    assert match_classes(["dog", "cat"], ["cat", "dog"]) == [1, 0]
    assert match_classes(["dog", "cat", "yak"], ["yak"]) == [2]
    with pytest.raises(InputError, match="the seeds, whose other classes are 'Cat', has no class 'cat'"):
        match_classes(["Cat", "dog"], ["cat", "dog"], "the seeds")
    with pytest.raises(InputError, match="whose classes are 'cat', has no class 'dog', which the data has"):
        match_classes(["cat"], ["cat", "dog"])


def test_a_view_in_another_order_shows_the_same():
    assert OTHER.classes == (NAMES[2], NAMES[0], NAMES[1])
    for i in range(len(DATA)):
        assert {OTHER.classes[c] for c in OTHER.labels(i)} == {NAMES[c] for c in DATA.labels(i)}
        assert OTHER.labels(i) == tuple(sorted(OTHER.labels(i)))
        for c, name in enumerate(OTHER.classes):
            assert_array_equal(OTHER.mask(i) == c + 1, DATA.mask(i) == NAMES.index(name) + 1)
        assert_array_equal(OTHER.mask(i) == 255, DATA.mask(i) == 255)


@pytest.mark.parametrize("data", [OTHER, MORE])
def test_seeds_of_a_model_in_another_order(tmp_path, data):
    one = seeds(tmp_path / "one", classifier(), DATA)
    two = seeds(tmp_path / "two", classifier(data.classes), DATA)
    for name in DATA.ids:
        a, b = one.load(name), two.load(name)
        assert a.classes == b.classes
        assert_array_equal(a.maps, b.maps)
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-6)


def test_seeds_of_a_model_with_other_names_are_refused(tmp_path):
    model = classifier([NAMES[0], "dotted cube", NAMES[2]])
    with pytest.raises(InputError, match="the model, whose other classes are 'dotted cube', has no class"):
        make_seeds(camplug.CAM(model), DATA, SeedFolder(tmp_path))


def test_seeds_and_labels_are_read_in_the_order_of_the_data(tmp_path):
    first, other = seeds(tmp_path / "first", classifier(), DATA), seeds(tmp_path / "other", classifier(), OTHER)
    assert best(first, DATA) == best(other, DATA)
    assert best(first, DATA) == pytest.approx(best(other, OTHER), abs=1e-4)  # maps of one value: the first class wins
    made = {}
    for key, folder in {"first": first, "other": other}.items():
        made[key] = LabelFolder(tmp_path / f"{key} labels")
        made[key].prepare({"classes": list(DATA.classes)})
        assert make_labels(PseudoLabels(Threshold(0.3), None), DATA, folder, made[key]).broken == []
    for i, name in enumerate(DATA.ids):
        assert_array_equal(made["first"].load(name), made["other"].load(name))
        told = read_labels(made["first"].path, OTHER, i)
        for c, called in enumerate(OTHER.classes):
            assert_array_equal(told == c + 1, made["first"].load(name) == NAMES.index(called) + 1)
    straight, turned = (score_labels(made["first"].path, d)[0].matrix for d in (DATA, OTHER))
    assert miou(straight, "all") == miou(turned, "all")
    assert straight[1, 1] == turned[2, 2]


def test_walked_seeds_are_in_the_order_of_the_data(tmp_path):
    class Still:
        def maps(self, photo, maps):
            return maps

    first, walked = seeds(tmp_path / "first", classifier(), DATA), SeedFolder(tmp_path / "walked")
    walked.prepare({"classes": list(OTHER.classes)})
    assert make_walked_seeds(Still(), OTHER, first, walked).broken == []
    for i, name in enumerate(OTHER.ids):
        assert walked.load(name).classes == OTHER.labels(i)
        assert_array_equal(walked.renumber(NAMES).load(name).maps, first.load(name).maps)


def test_what_the_data_has_not_is_told(tmp_path):
    few = [NAMES[0]]
    folder = seeds(tmp_path / "seeds", classifier(), DATA).renumber(few)
    with_more = next(name for i, name in enumerate(DATA.ids) if set(DATA.labels(i)) - {0})
    with pytest.raises(InputError, match=r"has the class . of its folder, which the data has not"):
        folder.load(with_more)
    labels = LabelFolder(tmp_path / "labels")
    labels.prepare({"classes": NAMES})
    labels.save("a", np.array([[0, 2, 255]], np.uint8))
    with pytest.raises(InputError, match=f"the labels show the class {NAMES[1]!r}, which the data has not"):
        labels.renumber(few).load("a")
    assert labels.renumber([NAMES[1]]).load("a").tolist() == [[0, 1, 255]]


def test_a_head_is_kept_in_the_order_of_the_data():
    model = classifier(MORE.classes)
    kept, x = build_classifier(model, NAMES, keep_head=True), torch.rand(2, 3, 48, 48)
    order = match_classes(MORE.classes, NAMES)
    torch.testing.assert_close(kept(x), model(x)[:, order])
    assert kept.classes == NAMES
    with pytest.raises(InputError, match="the trained model, whose other classes are"):
        build_classifier(model, [NAMES[0], "fly"], keep_head=True)
    with pytest.warns(UserWarning, match="the head is trained anew: the trained model"):
        new = build_classifier(model, [NAMES[0], "fly"])
    assert new.head.out_channels == 2


@pytest.mark.parametrize("labelled", [False, True])
def test_predictions_are_in_the_order_of_the_data(tmp_path, labelled):
    torch.manual_seed(0)
    segmenter = Segmenter(build_deeplab(trainable.net(), NAMES, trainable_settings()))
    made = {}
    for key, data in {"one": DATA, "two": OTHER}.items():
        made[key] = LabelFolder(tmp_path / key)
        made[key].prepare({"classes": list(data.classes)})
        assert make_predictions(segmenter, data, made[key], labelled=labelled).broken == []
    for name in DATA.ids:
        assert_array_equal(made["one"].load(name), made["two"].renumber(NAMES).load(name))
    few = RenumberedData(Scenes(2, (48, 48), seed=2, classes=1), [NAMES[0]])
    folder = LabelFolder(tmp_path / "few")
    folder.prepare({"classes": list(few.classes)})
    assert make_predictions(segmenter, few, folder).broken == []
    for i, name in enumerate(few.ids):
        scores = segmenter.scores(np.asarray(few.photo(i)))
        assert_array_equal(folder.load(name), scores[:2].argmax(0))
    more = LabelFolder(tmp_path / "more")
    more.prepare({"classes": list(MORE.classes)})
    with pytest.warns(UserWarning, match=r"the network has no class 'ghost': 1 of the data's \d are never found"):
        assert make_predictions(segmenter, MORE, more, labelled=labelled).broken == []
    none = copy.copy(DATA)
    none.classes = ("ghost", "elf", "imp")
    with pytest.raises(InputError, match=r"the network, whose other classes are .* has no class 'ghost'"):
        make_predictions(segmenter, none, folder)


def trainable_settings():
    from camplug.wsss.deeplab import DeepLabNetworkSettings

    return DeepLabNetworkSettings(output_stride=None)


def test_validation_in_another_order_gives_the_same_precision(tmp_path):
    options = {"model": trainable.net(), "data": trainable.scenes(8)}
    held_out = trainable.scenes(6, seed=3)
    turned = RenumberedData(held_out, held_out.classes[::-1])
    one = trainable.trained(tmp_path / "one", validation=held_out, **options)
    two = trainable.trained(tmp_path / "two", validation=turned, **options)
    assert one.losses["val_map"] == two.losses["val_map"]


def test_the_lists_of_a_recipe_have_one_order():
    recipe = SimpleNamespace(evaluate=SimpleNamespace(classes=None))
    data = match_lists(recipe, {"train": DATA, "val": OTHER})
    assert data["train"] is DATA
    assert data["val"].classes == DATA.classes
    assert [data["val"].labels(i) for i in range(len(DATA))] == [DATA.labels(i) for i in range(len(DATA))]
    assert_array_equal(data["val"].mask(0), DATA.mask(0))
    with pytest.raises(InputError, match=r"data\.val has other classes than data\.train \('ghost' is in one"):
        match_lists(recipe, {"train": DATA, "val": MORE})
