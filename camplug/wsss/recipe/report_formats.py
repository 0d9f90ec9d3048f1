"""Report as Markdown, and as one HTML file with its pictures inside."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from camplug.wsss.recipe.measure import format_seconds
from camplug.wsss.recipe.report_pictures import Panel
from camplug.wsss.recipe.report_tables import list_tables

MOST_BROKEN = 50  # images that are listed by name


def format_markdown(report: dict[str, Any]) -> str:
    """Return the report in Markdown, without pictures."""
    lines = [f"# {report['title'] or report['recipe']}", "", _describe_state(report), ""]
    for table in list_tables(report):
        ruled = [table.head, ["---"] + ["---:"] * (len(table.head) - 1), *table.rows]
        lines += [f"## {table.title}", ""]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in ruled]
        lines += ["", *([table.note, ""] if table.note else [])]
    lines += ["## Broken images", "", *_list_broken(report), ""]
    lines += ["## Settings", "", "```json", json.dumps(report["settings"], indent=1), "```", ""]
    return "\n".join([*lines, "## Versions", "", _format_versions(report), ""])


def format_html(report: dict[str, Any], pictures: Sequence[tuple[str, list[Panel]]]) -> str:
    """Return the report as one HTML file, pictures inside."""
    environment = Environment(
        loader=PackageLoader("camplug.wsss.recipe", ""), autoescape=True, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["base64"] = _encode_base64
    return environment.get_template("report.html.j2").render(
        title=report["title"] or report["recipe"],
        finished=report["finished"],
        state=_describe_state(report),
        tables=list_tables(report),
        pictures=pictures,
        list=report["pictures"][0]["list"] if report.get("pictures") else "",
        broken=_list_broken(report),
        settings=json.dumps(report["settings"], indent=1),
        versions=_format_versions(report),
    )


def _describe_state(report: dict[str, Any]) -> str:
    done = sum(row["finished"] for row in report["stages"])
    time = format_seconds(report["seconds"])
    text = f"Recipe {report['recipe']}: {done} of {len(report['stages'])} stages finished, {time}."
    return text if report["finished"] else text + " The run is not over: the same command goes on."


def _list_broken(report: dict[str, Any]) -> list[str]:
    found = [f"{row['stage']}: {b['image']}: {b['error']}" for row in report["stages"] for b in row["broken"]]
    more = [f"... and {len(found) - MOST_BROKEN} more, in report.json"] if len(found) > MOST_BROKEN else []
    return found[:MOST_BROKEN] + more or ["None."]


def _encode_base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _format_versions(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in report["versions"].items())
