"""Report of a run, finished or not: the figures of every stage with their origins, and pictures."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import camplug
from camplug.images.save import write_atomically
from camplug.settings import to_plain
from camplug.wsss.recipe.cache import Cache, write_json
from camplug.wsss.recipe.recipe import Recipe
from camplug.wsss.recipe.report_formats import format_html, format_markdown
from camplug.wsss.recipe.report_pictures import draw_pictures
from camplug.wsss.recipe.report_summary import describe_next_steps, summarise_report
from camplug.wsss.recipe.stage import Stage, get_stage
from camplug.wsss.store.network_file import NETWORK

PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "pillow")
FIGURES = ("miou", "per_class", "averaged_over", "convention", "images_scored", "images_listed", "list_sha256")


def write_report(recipe: Recipe, stages: Sequence[Stage], cache: Cache, out: Path) -> dict[str, Any]:
    """Write `out`/report.json, report.md and report.html, each atomically.

    Returns:
        The content of report.json.

    Raises:
        InputError: the folder cannot be written.
    """
    report = make_report(recipe, stages, cache)
    part = "val" if "val" in recipe.evaluate.products_on else "score_on" if "score_on" in recipe.data else "train"
    pictures = draw_pictures(stages, cache, part, recipe.evaluate.pictures, out)
    report["pictures"] = [
        {
            "image": row.name,
            "list": part,
            "labels": row.given,
            "predicted": row.predicted,
            "panels": [{"title": p.title, "file": str(p.file.relative_to(out))} for p in row.panels],
        }
        for row in pictures
    ]
    report["network"] = NETWORK if report["finished"] and (out / NETWORK).is_file() else None
    report["summary"] = summarise_report(report)
    report["next"] = describe_next_steps(recipe, report, out) if report["finished"] else []
    classes = list(cache.data["train"].classes) if "train" in cache.data else []
    write_json(out / "report.json", report)
    for name, text in (("report.md", format_markdown(report)), ("report.html", format_html(report, pictures, classes))):
        content = text.encode()
        write_atomically(str(out / name), lambda file, content=content: file.write(content))
    return report


def make_report(recipe: Recipe, stages: Sequence[Stage], cache: Cache) -> dict[str, Any]:
    """Return the report without pictures, as plain data."""
    done = {stage: cache.load_document(stage) for stage in stages}
    rows = []
    for stage in stages:
        found = done[stage]
        rows.append(
            {
                "stage": stage.name,
                "kind": stage.kind,
                "finished": found is not None,
                "folder": None if cache.get_key(stage) is None else f"cache/{cache.get_folder(stage).name}",
                "seconds": None if found is None else found["seconds"],
                "images": None if found is None else found["images"],
                "bytes": None if found is None else found["bytes"],
                "processes": None if found is None else found["processes"],
                "broken": [] if found is None else found["broken"],
                "losses": {} if found is None else found["figures"].get("losses", {}),
                "labels": None if found is None else found["figures"].get("labels_check"),
                "learned_from": {} if found is None else found["figures"].get("learned_from", {}),
                "settings": to_plain(dict(stage.settings)),
            }
        )
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "finished": all(found is not None for found in done.values()),
        "seconds": sum(row["seconds"] or 0 for row in rows),
        "data": {name: _describe_list(recipe, cache, name) for name in recipe.data},
        "classifier": {
            stage.part: found["figures"]["classifier"]
            for stage, found in done.items()
            if found is not None and "classifier" in found["figures"]
        },
        "scores": [
            make_score(stage, found, cache) for stage, found in done.items() if stage.scores and found is not None
        ],
        "stages": rows,
        "settings": to_plain(recipe.text),
        "versions": list_versions(),
    }


def make_score(stage: Stage, found: dict[str, Any], cache: Cache) -> dict[str, Any]:
    """Return the scores of a stage and what it scored."""
    product, figures = stage.inputs["product"], found["figures"]
    row = {"stage": stage.name, "product": product.name, "kind": product.kind, "list": stage.part}
    row |= {key: figures[key] for key in FIGURES}
    row |= {
        "labels": figures["labels"],
        **get_stage(product.kind).describe_result(product, cache.load_document(product)),
    }
    for key in ("threshold", "threshold_chosen", "best_threshold_here", "best_miou_here", "sweep"):
        if key in figures:
            row[key] = figures[key]
    return row


def list_versions() -> dict[str, str]:
    """Return the versions of camplug and of the packages it uses, and the machine."""
    found = {"camplug": camplug.__version__, "python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"machine": f"{platform.system()} {platform.machine()}"}


def _describe_list(recipe: Recipe, cache: Cache, name: str) -> dict[str, Any]:
    from camplug.wsss.store.identity import hash_names

    part = recipe.data[name]
    found: dict[str, Any] = {"data": part.data, "split": part.split, "options": to_plain(part.options)}
    if name in cache.data:
        data = cache.data[name]
        found |= {"images": len(data), "classes": len(data.classes), "list_sha256": hash_names(data)}
    return found
