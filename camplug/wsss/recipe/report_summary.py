"""Summary of a report in sentences: what was made, how good it is, what to look at, what to do next."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from camplug.wsss.classifier.checkpoint import CLASSIFIER_FILE
from camplug.wsss.recipe.measure import format_seconds
from camplug.wsss.recipe.recipe import Recipe

LOSS = 0.01  # IoU by which a class must fall to be pointed out
SHOWN_NAMES = 4
WITHOUT_MASKS = (
    "There are no masks, so nothing was scored. What can be judged without them: the classifier's average precision "
    "against the image labels, since a class that is not recognised has no good map; images whose labels are empty or "
    "flooded; and by eye, in the pictures, whether labels cover whole objects or only parts, and whether they take "
    "ground along. A few masks, as in docs/own_data.md, give mIoU."
)
NOTHING = "Nothing stands out: no class fell between stages, no labels are empty or flooded, no image is broken."


class Fall(NamedTuple):
    """Class whose IoU fell from one product to the next one on the same list of images."""

    part: str
    before: str
    after: str
    name: str
    iou_before: float
    iou_after: float


def list_products(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the scores by list of images, in the order of the stages, without those that choose thresholds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for score in report["scores"]:
        if not score["stage"].startswith("choose"):
            found.setdefault(score["list"], []).append(score)
    return found


def name_product(score: dict[str, Any]) -> str:
    """Return the name of a scored product without its list.

    >>> name_product({"stage": "evaluate predictions crf val", "list": "val"})
    'predictions crf'
    """
    return str(score["stage"]).removeprefix("evaluate ").removesuffix(f" {score['list']}")


def find_falls(report: dict[str, Any]) -> list[Fall]:
    """Find the classes whose IoU is more than a point lower than that of the product before, largest falls first."""
    found = []
    for part, scores in list_products(report).items():
        for before, after in pairwise(scores):
            for name in after["averaged_over"]:
                old, new = (score["per_class"][name]["iou"] for score in (before, after))
                if old is not None and new is not None and old - new > LOSS:
                    found.append(Fall(part, name_product(before), name_product(after), name, old, new))
    return sorted(found, key=lambda fall: fall.iou_after - fall.iou_before)


def summarise_report(report: dict[str, Any]) -> dict[str, Any]:
    """Return the summary: "made" and "quality" are lists of sentences, "look_at" those about what may be wrong."""
    return {"made": _describe_made(report), "quality": _describe_quality(report), "look_at": _list_warnings(report)}


def _describe_made(report: dict[str, Any]) -> list[str]:
    train = report["data"].get("train", {})
    kinds = [row["kind"] for row in report["stages"] if row["finished"]]
    made = "A segmentation network" if report["network"] else "Labels" if "labels" in kinds else "Maps"
    images, classes = train.get("images", "?"), train.get("classes", "?")
    text = (
        f"{made} for {classes} classes from {images} images with image labels, in {format_seconds(report['seconds'])}."
    )
    return [text]


def _describe_quality(report: dict[str, Any]) -> list[str]:
    lines = []
    for part, scores in list_products(report).items():
        known = [score for score in scores if score["miou"][score["convention"]] is not None]
        if not known:
            continue
        last, best = known[-1], max(known, key=lambda score: score["miou"][score["convention"]])
        of = f"{last['images_scored']} images, {len(last['averaged_over'])} classes with the background"
        text = f"mIoU on {part}: {_format_miou(last)} % for {name_product(last)} ({of})"
        lines.append(
            text + ("." if best is last else f"; the best is {name_product(best)} with {_format_miou(best)} %.")
        )
    if not report["scores"]:
        lines.append(WITHOUT_MASKS if report["finished"] else "Nothing is scored yet.")
    if report["classifier"]:
        precisions = [
            f"{100 * found['mean_average_precision']:.1f} % on {part} ({found['images']} images)"
            for part, found in report["classifier"].items()
        ]
        lines.append(f"The classifier's mean average precision: {', '.join(precisions)}.")
    return lines


def _list_warnings(report: dict[str, Any]) -> list[str]:
    lines = []
    steps: dict[tuple[str, str, str], list[Fall]] = {}
    for fall in find_falls(report):
        steps.setdefault((fall.part, fall.before, fall.after), []).append(fall)
    for (part, before, after), falls in steps.items():
        names = [f"{f.name} {100 * f.iou_before:.1f} to {100 * f.iou_after:.1f}" for f in falls]
        lines.append(f"{after} on {part} made classes worse than {before}: {_join(names)}.")
    for row in report["stages"]:
        for key, what in (("empty", "without any object"), ("flooded", "with less than 2 % of background")):
            if (found := row["labels"]) and found[key]:
                count = f"{found[key]} of {found['images']} images"
                lines.append(f"{row['stage']}: {count} {what}: {_join(found[f'{key}_images'], found[key])}.")
    broken = sum(len(row["broken"]) for row in report["stages"])
    if broken:
        lines.append(f"Broken images: {broken}, listed below.")
    return lines or ([NOTHING] if report["finished"] else [])


def _join(names: list[str], count: int | None = None) -> str:
    more = (len(names) if count is None else count) - len(names[:SHOWN_NAMES])
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _format_miou(score: dict[str, Any]) -> str:
    return f"{100 * score['miou'][score['convention']]:.1f}"


def describe_next_steps(recipe: Recipe, report: dict[str, Any], out: Path) -> list[str]:
    """Return what can be done with the results of a run, one line each."""
    lines = []
    if not report["scores"]:
        lines.append(
            "no masks: nothing was scored. Judge the pictures in the report by eye; a few masks, as in "
            "docs/own_data.md, give mIoU."
        )
    if report["network"] is not None:
        file = shlex.quote(str(out / report["network"]))
        side = recipe.segment.long_side
        options = "" if side is None else f" --long-side {side}"
        if recipe.segment.labels == "predicted" and (classifier := out / CLASSIFIER_FILE.file).is_file():
            options += f" --labels predicted --classifier {shlex.quote(str(classifier))}"
        lines += [
            f"network: {out / report['network']}",
            f"segment photographs: camplug segment PHOTOS --weights {file}{options} --out predictions --overlays "
            "overlays",
            "score predictions on masks: camplug evaluate predictions --data DATA",
            "correct predictions by hand: camplug export-labels predictions --photos PHOTOS --format label-studio "
            "--out tasks.json",
            f"use it without camplug: camplug export {file} --onnx network.onnx --size HEIGHT,WIDTH",
        ]
    return lines
