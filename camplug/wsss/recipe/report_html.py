"""Report as Markdown, and as one HTML file with its pictures inside."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from camplug.wsss.recipe.measure import format_seconds
from camplug.wsss.recipe.report_pictures import Panel
from camplug.wsss.recipe.stage import get_stage

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .6rem 0 1.4rem; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
td.text, th.text { text-align: left; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: 1rem; }
figure { margin: 0; } figcaption { font-size: 12px; color: #555; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; }
.note { color: #a40; }
"""


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


def format_markdown(report: dict[str, Any]) -> str:
    """Return the report in Markdown, without pictures."""
    lines = [f"# {report['title'] or report['recipe']}", "", _describe_state(report), ""]
    for table in list_tables(report):
        lines += [f"## {table.title}", ""]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in _rule_rows(table)]
        lines += ["", *([table.note, ""] if table.note else [])]
    lines += ["## Broken images", "", *_list_broken(report), ""]
    lines += ["## Settings", "", "```json", json.dumps(report["settings"], indent=1), "```", ""]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return "\n".join([*lines, "## Versions", "", versions, ""])


def format_html(report: dict[str, Any], pictures: Sequence[tuple[str, list[Panel]]]) -> str:
    """Return the report as one HTML file, pictures inside."""
    title = html.escape(report["title"] or report["recipe"])
    parts = [
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>",
        f"<p{'' if report['finished'] else ' class=note'}>{html.escape(_describe_state(report))}</p>",
    ]
    for number, table in enumerate(list_tables(report)):
        parts.append(_format_table(table))
        if number == 0:
            parts += _format_pictures(report, pictures)
    parts += ["<h2>Broken images</h2>", *(f"<p>{html.escape(line)}</p>" for line in _list_broken(report))]
    parts.append(f"<h2>Settings</h2><pre>{html.escape(json.dumps(report['settings'], indent=1))}</pre>")
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    parts.append(f"<h2>Versions</h2><p>{html.escape(versions)}</p></body></html>\n")
    return "\n".join(parts)


def _describe_state(report: dict[str, Any]) -> str:
    done = sum(row["finished"] for row in report["stages"])
    time = format_seconds(report["seconds"])
    text = f"Recipe {report['recipe']}: {done} of {len(report['stages'])} stages finished, {time}."
    return text if report["finished"] else text + " The run is not over: the same command goes on."


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
    head = ["product", "labels", "threshold, and how it was chosen", "best here", "dense CRF", "list hash"]
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


def _list_broken(report: dict[str, Any]) -> list[str]:
    found = [f"{row['stage']}: {b['image']}: {b['error']}" for row in report["stages"] for b in row["broken"]]
    more = [f"... and {len(found) - 50} more, in report.json"] if len(found) > 50 else []
    return found[:50] + more or ["None."]


def _rule_rows(table: Table) -> list[list[str]]:
    return [table.head, ["---"] + ["---:"] * (len(table.head) - 1), *table.rows]


def _format_table(table: Table) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    note = f"<p>{html.escape(table.note)}</p>" if table.note else ""
    return f"<h2>{html.escape(table.title)}</h2>\n<table>{row(table.head, 'th')}\n{body}</table>{note}"


def _format_pictures(report: dict[str, Any], pictures: Sequence[tuple[str, list[Panel]]]) -> list[str]:
    if not pictures:
        return []
    of = report["pictures"][0]["list"] if report.get("pictures") else ""
    parts = [f"<h2>{len(pictures)} images through all stages</h2><p>Spread evenly over the list {html.escape(of)}.</p>"]
    for name, panels in pictures:
        shown = "".join(
            f'<figure><img alt="{html.escape(p.title)} of {html.escape(name)}" src="data:image/png;base64,'
            f'{_encode_base64(p.file)}"><figcaption>{html.escape(p.title)}</figcaption></figure>'
            for p in panels
        )
        parts.append(f'<p>{html.escape(name)}</p><div class="row">{shown}</div>')
    return parts


def _encode_base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _format_percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
