"""Report of `camplug evaluate`: its file, plot and table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from camplug.cli import common


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report, and for seeds the plot of mIoU over thresholds beside it."""
    from camplug.images.save import save_picture, write_atomically
    from camplug.show import curves

    text = json.dumps(report, indent=2) + "\n"
    write_atomically(str(path), lambda file: file.write(text.encode()))
    if "sweep" in report:
        line = [np.nan if v is None else 100 * v for v in report["sweep"]["miou"]]
        title = f"mIoU ({report['convention']}), {Path(report['results']).name}, {report['split'] or report['data']}"
        picture = curves(
            report["sweep"]["thresholds"],
            {"": line},
            x_label="background threshold",
            y_label="mIoU [%]",
            title=title,
            mark=report["threshold"],
        )
        save_picture(picture, str(path.with_suffix(".png")))


def format_miou(report: dict[str, Any]) -> str:
    """Return the mean IoU by each convention, the report's own first, with the number of classes averaged.

    >>> format_miou(
    ...     {
    ...         "convention": "present",
    ...         "miou": {"present": 0.369, "all": 0.0527, "truth": None},
    ...         "classes_in_mean": {"present": 3, "all": 21, "truth": 0},
    ...     }
    ... )
    'mIoU over 3 of 21 classes: 36.9 (present); by the other conventions: 5.3 (all), - (truth, 0 of 21 classes)'
    """
    counts, own = report["classes_in_mean"], report["convention"]
    miou = {k: "-" if v is None else f"{100 * v:.1f}" for k, v in report["miou"].items()}
    every = counts["all"]
    over = {k: f"{every}" if n == every else f"{n} of {every}" for k, n in counts.items()}
    others = [
        f"{v} ({k}" + ("" if counts[k] in (every, counts[own]) else f", {over[k]} classes") + ")"
        for k, v in miou.items()
        if k != own
    ]
    return f"mIoU over {over[own]} classes: {miou[own]} ({own}); by the other conventions: {', '.join(others)}"


def show_report(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    from rich.table import Table

    head = f"{report['results']}: {report['images_scored']} of {report['images_listed']} images"
    if "threshold" in report:
        head += f"; threshold {report['threshold']:.4g}, {report['threshold_chosen']}"
    common.out.print(common.escape_markup(head), soft_wrap=True)
    table = Table("class")
    for column in ("IoU", "precision", "recall", "FDR"):
        table.add_column(column, justify="right")
    averaged = set(report["averaged_over"])
    for name, row in report["per_class"].items():
        cells = [f"{100 * v:.1f}" if v is not None else "-" for v in row.values()]
        if name in averaged or any(v is not None for v in row.values()):
            table.add_row(common.escape_markup(name), *cells, style=None if name in averaged else "dim")
    common.out.print(table)
    common.out.print(format_miou(report), soft_wrap=True)
    for group, row in report.get("by_number_of_classes", {}).items():
        value = "-" if row["miou"] is None else f"{100 * row['miou']:.1f}"
        of = {"1": "1 class", "3": "3 or more classes"}.get(group, f"{group} classes")
        common.out.print(f"  images of {of}: {value} ({row['images']} of them)", soft_wrap=True)
