"""Summary and charts of a report, on numbers written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.image_checks import check_labels, compute_average_precisions
from camplug.wsss.recipe.report_charts import list_charts
from camplug.wsss.recipe.report_pictures import ImageRow, find_predicted
from camplug.wsss.recipe.report_summary import WITHOUT_MASKS, Fall, find_falls, summarise_report
from camplug.wsss.seeds import Seed, SeedFolder

NAMES = ["background", "cat", "dog"]


def make_score(stage, part, *ious):
    value = float(np.mean(ious))
    score = {"stage": f"evaluate {stage} {part}", "list": part, "miou": {"present": value}, "convention": "present"}
    classes = {name: {"iou": iou} for name, iou in zip(NAMES, ious, strict=True)}
    return score | {"per_class": classes, "averaged_over": NAMES, "images_scored": 7}


def make_report(**changes):
    row = {"stage": "labels train", "kind": "labels", "finished": True, "broken": [], "labels": None}
    report = {"network": "network.pt", "stages": [row], "data": {"train": {"images": 40, "classes": 2}}, "scores": []}
    return report | {"finished": True, "seconds": 100.0, "classifier": {}} | changes


def make_scores():
    return [
        make_score("seeds", "train", 0.8, 0.5, 0.4),
        make_score("labels", "train", 0.795, 0.6, 0.3),
        make_score("labels", "val", 0.9, 0.5, 0.7),
        make_score("predictions", "val", 0.9, 0.45, 0.2),
        {**make_score("seeds", "train", 0.1, 0.1, 0.1), "stage": "choose seeds threshold"},
    ]


def test_falls_are_by_more_than_a_point_from_one_product_to_the_next():
    assert find_falls(make_report(scores=make_scores())) == [
        Fall("val", "labels", "predictions", "dog", 0.7, 0.2),
        Fall("train", "seeds", "labels", "dog", 0.4, 0.3),
        Fall("val", "labels", "predictions", "cat", 0.5, 0.45),
    ]


def test_the_summary_of_a_scored_run():
    checks = {"images": 40, "objects": 0.3, "empty": 6, "flooded": 0, "flooded_images": []}
    checks["empty_images"] = ["a", "b", "c", "d", "e", "f"]
    row = {"stage": "labels train", "kind": "labels", "finished": True, "labels": checks}
    row["broken"] = [{"image": "z", "error": "x"}]
    mean = {"val": {"images": 7, "mean_average_precision": 0.8125, "average_precision": {"cat": 0.75, "dog": 0.875}}}
    found = summarise_report(make_report(scores=make_scores(), stages=[row], classifier=mean))
    assert found == {
        "made": ["A segmentation network for 2 classes from 40 images with image labels, in 1.7 min."],
        "quality": [
            "mIoU on train: 56.5 % for labels (7 images, 3 classes with the background); the best is seeds with "
            "56.7 %.",
            "mIoU on val: 51.7 % for predictions (7 images, 3 classes with the background); the best is labels with "
            "70.0 %.",
            "The classifier's mean average precision: 81.2 % on val (7 images).",
        ],
        "look_at": [
            "predictions on val made classes worse than labels: dog 70.0 to 20.0, cat 50.0 to 45.0.",
            "labels on train made classes worse than seeds: dog 40.0 to 30.0.",
            "labels train: 6 of 40 images without any object: a, b, c, d and 2 more.",
            "Broken images: 1, listed below.",
        ],
    }


def test_without_masks_the_summary_says_what_can_be_judged():
    found = summarise_report(make_report(network=None))
    assert found["made"] == ["Labels for 2 classes from 40 images with image labels, in 1.7 min."]
    assert found["quality"] == [WITHOUT_MASKS]
    assert found["look_at"][0].startswith("Nothing stands out")
    unfinished = summarise_report(make_report(network=None, finished=False))
    assert unfinished["quality"] == ["Nothing is scored yet."]
    assert unfinished["look_at"] == []


def test_charts_compare_the_last_product_with_the_first():
    precision = {"val": {"images": 7, "mean_average_precision": 0.5, "average_precision": {"dog": 0.5}}}
    charts = {c.title: c for c in list_charts(make_report(scores=make_scores(), classifier=precision), NAMES[1:])}
    assert list(charts) == ["mIoU on train", "Classes on train", "mIoU on val", "Classes on val", "Classifier on val"]
    assert [(bar.name, bar.text) for bar in charts["mIoU on val"].bars] == [("labels", "70.0"), ("predictions", "51.7")]
    dog = charts["Classes on val"].bars[2]
    assert (dog.name, dog.text, dog.colour, dog.is_worse) == ("dog", "20.0 (-50.0)", "#336fff", True)
    assert (dog.value, dog.mark) == pytest.approx((20, 70))
    assert not charts["Classes on train"].bars[0].is_worse  # half a point
    assert charts["Classifier on val"].bars[0].text == "50.0"


class Labelled(SegmentationData):
    classes, ids, has_masks = ("cat", "dog"), ("a", "b", "c", "d"), False

    def labels(self, i):
        return [(0,), (), (1,), (0, 1)][i]

    photo = mask = None


def test_labels_are_empty_where_an_object_is_missing_and_flooded_without_background(tmp_path):
    folder = LabelFolder(tmp_path).prepare({})
    planes = np.zeros((4, 10, 10), np.uint8)
    planes[2], planes[3, :5], planes[3, 5:, :5] = 2, 1, 255
    planes[2, 0, 0] = 0  # 1 % of background
    for name, plane in zip(Labelled.ids, planes, strict=True):
        folder.save(name, plane)
    found = check_labels(tmp_path, Labelled())
    assert (found["empty_images"], found["flooded_images"]) == (["a"], ["c"])  # b shows no class
    assert found["objects"] == pytest.approx((0.99 + 50 / 75) / 4)  # ignored pixels do not count
    assert (found["images"], found["empty"], found["flooded"]) == (4, 1, 1)
    (tmp_path / "a.png").unlink()
    assert check_labels(tmp_path, Labelled())["images"] == 3


def test_average_precision_by_hand():
    """By logit the labels are 1, 0, 1, 0: precisions 1 and 2/3 at the hits; classes on all images lack one."""
    logits = [np.array([3.0, 0.0]), np.array([2.0, 0.0]), np.array([1.0, 0.0]), np.array([-1.0, 0.0])]
    found = compute_average_precisions(logits, [(0, 1), (1,), (0, 1), (1,)], ["cat", "dog"])
    assert found == pytest.approx({"cat": (1 + 2 / 3) / 2})


def test_the_classifier_sees_classes_above_one_half(tmp_path):
    folder = SeedFolder(tmp_path).prepare({})
    folder.save("a", Seed(np.zeros((0, 4, 4), np.uint8), (), (4, 4), np.array([np.log(3), -1, 4], np.float32)))
    found = find_predicted(folder, "a", ["cat", "dog", "yak"])
    assert list(found) == ["yak", "cat"]
    assert found["cat"] == pytest.approx(0.75)
    assert find_predicted(folder, "b", ["cat", "dog", "yak"]) is None
    assert ImageRow("a", [], [], [], {}).words == "Labelled with no class; the classifier sees no class."
    assert ImageRow("a", [], [], None, None).words == ""
