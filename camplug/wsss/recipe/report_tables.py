"""Tables of a report: scores, classes, origins of the figures, lists of images, stages."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from camplug.wsss.recipe.measure import format_seconds
from camplug.wsss.recipe.stage import get_stage


class Table(NamedTuple):
    """Table with its title."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


def list_tables(report: dict[str, Any]) -> list[Table]:
    """Return all tables of a report."""
    makers = (_tabulate_scores, _tabulate_classes, _tabulate_origins, _tabulate_lists, _tabulate_stages)
    tables = [make(report) for make in makers]
    return [table for table in tables if table is not None]


def _tabulate_scores(report: dict[str, Any]) -> Table | None:
    """Return the mIoU of all results, by all conventions."""
    if not report["scores"]:
        return None
    rows = []
    for score in report["scores"]:
        miou = score["miou"]
        objects = [v for k, v in score["per_class"].items() if k in score["averaged_over"] and k != "background"]
        rows.append(
            [
                score["stage"].removeprefix("evaluate "),
                score["list"],
                str(score["images_scored"]),
                *(_format_percent(miou[c]) for c in ("present", "all", "truth")),
                _format_percent(_average([row["precision"] for row in objects])),
                _format_percent(_average([row["recall"] for row in objects])),
                f"{score['threshold']:.3g}" if "threshold" in score else "",
            ]
        )
    first = report["scores"][0]
    head = ["product", "list", "images", "mIoU present", "mIoU all", "mIoU truth", "precision", "recall", "threshold"]
    note = (
        f"mIoU in percent over {len(first['averaged_over'])} classes by three conventions: classes in truth or result "
        f"(present), all of them with 0 for absent ones (all), classes in the truth (truth); this recipe goes by "
        f"{first['convention']}. Precision and recall are means over the objects' classes."
    )
    return Table("From seeds to segmentation", head, rows, note)


def _tabulate_classes(report: dict[str, Any]) -> Table | None:
    """Return the IoU of every class at every stage."""
    scores = report["scores"]
    if not scores:
        return None
    names = [
        name
        for name in scores[0]["per_class"]
        if name in scores[0]["averaged_over"] and any(s["per_class"][name]["iou"] is not None for s in scores)
    ]
    rows = [[name, *(_format_percent(score["per_class"][name]["iou"]) for score in scores)] for name in names]
    return Table("IoU of each class", ["class", *(s["stage"].removeprefix("evaluate ") for s in scores)], rows)


def _tabulate_origins(report: dict[str, Any]) -> Table | None:
    """Return thresholds and how they were chosen, labels, CRF, lists."""
    rows = []
    for score in report["scores"]:
        chosen = f"{score['threshold']:.3g}: {score['threshold_chosen']}" if "threshold" in score else ""
        best = f"{score['best_threshold_here']:.2f}" if "best_threshold_here" in score else ""
        crf = "none" if score["crf"] is None else json.dumps(score["crf"])
        rows.append(
            [score["stage"].removeprefix("evaluate "), score["labels"], chosen, best, crf, score["list_sha256"]]
        )
    for row in report["stages"]:
        training = get_stage(row["kind"]).describe_training(row)
        if training is not None:
            rows.append([row["stage"], "image labels given", training[0], "", training[1], ""])
    head = ["product", "labels", "threshold, and how it was chosen", "best here", "CRF or PAR", "list hash"]
    note = "Best here is the threshold that would be best on the very images: chosen with their masks, so optimistic."
    return Table("How the figures came about", head, rows, note) if rows else None


def _tabulate_lists(report: dict[str, Any]) -> Table:
    head = ["list", "data", "split", "images", "classes", "list hash"]
    keys = ("data", "split", "images", "classes", "list_sha256")
    rows = [[name, *(str(part.get(key) or "") for key in keys)] for name, part in report["data"].items()]
    return Table("Lists of images", head, rows)


def _tabulate_stages(report: dict[str, Any]) -> Table:
    rows = []
    for row in report["stages"]:
        losses = ", ".join(f"{name} {value:.4f}" for name, value in row["losses"].items())
        if row["finished"]:
            size = f"{row['bytes'] / 1e6:.1f}"
            rows.append(
                [row["stage"], str(row["images"]), format_seconds(row["seconds"]), size, str(row["processes"]), losses]
            )
        else:
            rows.append([row["stage"], "", "to be run", "", "", ""])
    head = ["stage", "images", "time", "MB", "processes", "last losses"]
    return Table("Stages", head, rows, "Times are of the runs that made a stage, other work of the machine included.")


def _format_percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
