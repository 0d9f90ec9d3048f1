"""Report as Markdown, and as one HTML file with its pictures inside."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from camplug.wsss.recipe.measure import format_seconds
from camplug.wsss.recipe.report_charts import list_charts
from camplug.wsss.recipe.report_pictures import ImageRow
from camplug.wsss.recipe.report_tables import list_tables
from camplug.wsss.recipe.stage import get_stage

MOST_BROKEN = 50  # images that are listed by name


def format_markdown(report: dict[str, Any]) -> str:
    """Return the report in Markdown, without pictures."""
    lines = [f"# {report['title'] or report['recipe']}", "", _describe_state(report), ""]
    for title, sentences in _list_summary(report):
        lines += [f"## {title}", "", *(f"- {sentence}" for sentence in sentences), ""]
    for table in list_tables(report):
        ruled = [table.head, ["---"] + ["---:"] * (len(table.head) - 1), *table.rows]
        lines += [f"## {table.title}", ""]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in ruled]
        lines += ["", *([table.note, ""] if table.note else [])]
    lines += ["## Broken images", "", *_list_broken(report), ""]
    lines += ["## Settings", "", "```json", json.dumps(report["settings"], indent=1), "```", ""]
    return "\n".join([*lines, "## Versions", "", _format_versions(report), ""])


def format_html(report: dict[str, Any], pictures: Sequence[ImageRow], classes: Sequence[str]) -> str:
    """Return the report as one HTML file, pictures inside.

    Args:
        report: content of report.json.
        pictures: images with their pictures.
        classes: class names of the data.
    """
    environment = Environment(
        loader=PackageLoader("camplug.wsss.recipe", ""), autoescape=True, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["base64"] = _encode_base64
    return environment.get_template("report.html.j2").render(
        title=report["title"] or report["recipe"],
        finished=report["finished"],
        state=_describe_state(report),
        summary=_list_summary(report),
        charts=list_charts(report, list(classes)),
        links=_list_links(report),
        next=report["next"],
        tables=list_tables(report),
        pictures=pictures,
        list=report["pictures"][0]["list"] if report.get("pictures") else "",
        has_scores=bool(report["scores"]),
        broken=_list_broken(report),
        settings=json.dumps(report["settings"], indent=1),
        versions=_format_versions(report),
    )


def _describe_state(report: dict[str, Any]) -> str:
    done = sum(row["finished"] for row in report["stages"])
    time = format_seconds(report["seconds"])
    text = f"Recipe {report['recipe']!r}: {done} of {len(report['stages'])} stages finished, {time}."
    return text if report["finished"] else text + " The run is not complete; run the same command again to continue."


def _list_summary(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
    headings = {"made": "What was made", "quality": "How good it is", "look_at": "What to look at"}
    return [(title, report["summary"][key]) for key, title in headings.items() if report["summary"][key]]


def _list_links(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and places, relative to the page, of the network, the results shown, and the figures."""
    links = [] if report["network"] is None else [("network", report["network"])]
    shown = [row for row in report["stages"] if row["finished"] and get_stage(row["kind"]).panel]
    links += [(row["stage"], f"{row['folder']}/") for row in shown if row["folder"] is not None]
    return [*links, ("all figures", "report.json")]


def _list_broken(report: dict[str, Any]) -> list[str]:
    found = [f"{row['stage']}: {b['image']}: {b['error']}" for row in report["stages"] for b in row["broken"]]
    more = [f"... and {len(found) - MOST_BROKEN} more, in report.json"] if len(found) > MOST_BROKEN else []
    return found[:MOST_BROKEN] + more or ["None."]


def _encode_base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _format_versions(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in report["versions"].items())
