"""Charts of a report: bars of mIoU and of each class's IoU, inline SVG beside words that stay readable on phones."""

from __future__ import annotations

from typing import Any, NamedTuple

from camplug.show.labels import format_hex, make_class_colors
from camplug.wsss.recipe.report_summary import LOSS, list_products, name_product

GREY = "#777777"


class Bar(NamedTuple):
    """Bar with its words; lengths are in percent.

    Attributes:
        name: words on the left.
        value: length of the bar.
        text: words on the right.
        colour: colour of the bar.
        mark: place of a mark; None for none.
        is_worse: True if the value lies below the mark by more than a point.
    """

    name: str
    value: float
    text: str
    colour: str = GREY
    mark: float | None = None
    is_worse: bool = False


class Chart(NamedTuple):
    """Bars with a title and a note."""

    title: str
    bars: list[Bar]
    note: str


def list_charts(report: dict[str, Any], classes: list[str]) -> list[Chart]:
    """Return the charts of a report: mIoU through the stages and each class, for every list of images, then
    the classifier.

    Args:
        report: see `camplug.wsss.recipe.report`.
        classes: class names of the data, which give the colours.
    """
    colours = {name: format_hex(c) for name, c in zip(classes, make_class_colors(len(classes)), strict=True)}
    charts = []
    for part, scores in list_products(report).items():
        bars = []
        for score in scores:
            miou = score["miou"][score["convention"]]
            if miou is not None:
                bars.append(Bar(name_product(score), 100 * miou, f"{100 * miou:.1f}", "#2b6cb0"))
        note = f"mIoU in percent, {scores[0]['images_scored']} images."
        charts.append(Chart(f"mIoU on {part}", bars, note))
        charts.append(_chart_classes(part, scores, colours))
    for where, found in report["classifier"].items():
        if where != "val" and "val" in report["classifier"]:
            continue
        values = [(name, 100 * value) for name, value in found["average_precision"].items()]
        bars = [Bar(name, value, f"{value:.1f}", colours.get(name, GREY)) for name, value in values]
        note = f"Average precision in percent of the classifier against the image labels, {found['images']} images."
        charts.append(Chart(f"Classifier on {where}", bars, note))
    return charts


def _chart_classes(part: str, scores: list[dict[str, Any]], colours: dict[str, str]) -> Chart:
    first, last = scores[0], scores[-1]
    bars = []
    for name in last["averaged_over"]:
        old, new = (score["per_class"][name]["iou"] for score in (first, last))
        if new is None:
            continue
        change = "" if old is None or first is last else f" ({100 * (new - old):+.1f})"
        mark = None if old is None or first is last else 100 * old
        worse = mark is not None and old - new > LOSS
        bars.append(Bar(name, 100 * new, f"{100 * new:.1f}{change}", colours.get(name, GREY), mark, worse))
    note = f"IoU in percent of {name_product(last)}"
    if first is not last:
        note += f"; the mark and the number in brackets compare with {name_product(first)}"
    return Chart(f"Classes on {part}", bars, f"{note}.")
