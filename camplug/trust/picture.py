"""Picture of a trust report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F

from camplug.show import colorize, overlay
from camplug.show.figures import render_figure

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.trust.report import Curves, TrustReport

_COLUMNS = 3


def draw_report(report: TrustReport) -> Image:
    """Draw the photograph, its map, the curves against chance, and the maps of random weights.

    Args:
        report: result of `camplug.trust.check`.
    """
    from matplotlib.figure import Figure

    one = report.explanation
    photo = np.asarray(one.image)
    count = len(report.randomized)
    lines = 1 + (report.curves is not None)
    figure = Figure(figsize=(9.6, 3.1 * lines + (1.6 if count else 0) + 0.6), dpi=110, layout="constrained")
    parts = figure.subfigures(lines + bool(count), 1, squeeze=False, height_ratios=[3.1] * lines + [1.6] * bool(count))
    parts = parts[:, 0]
    top = parts[0].subplots(1, _COLUMNS, width_ratios=(1, 1, 1.1))
    panels = {
        "photo": photo,
        one.title().replace("\n", ": "): np.asarray(overlay(photo, one.normalized_maps()[0].numpy(), bar=False)),
    }
    for axis, (title, panel) in zip(top, panels.items(), strict=False):
        _show(axis, panel, title)
    _write(top[2], report)
    if report.curves is not None:
        _draw_curves(parts[1].subplots(1, _COLUMNS, sharey=True), report.curves)
    if count:
        axes = parts[-1].subplots(1, count, squeeze=False)[0]
        parts[-1].suptitle(f"{one.method}: the map while weights become random, top layers first", fontsize=9)
        for axis, (title, heat) in zip(axes, report.randomized, strict=True):
            small = F.interpolate(heat[None, None], scale_factor=min(1, 160 / max(heat.shape)), mode="area")[0, 0]
            _show(axis, colorize(small.numpy()), title)
    figure.suptitle(f"{report.verdict}: {one.method}, {one.names[0]}", fontsize=12, parse_math=False)
    return render_figure(figure)


def _draw_curves(axes: Any, curves: Curves) -> None:
    """Draw deletion, insertion and ROAD; chance in grey."""
    lines = (
        (axes[0], "deletion", curves.fractions, [(curves.deletion, "C3", "map first")], curves.random_deletion),
        (axes[1], "insertion", curves.fractions, [(curves.insertion, "C2", "map first")], curves.random_insertion),
        (
            axes[2],
            "ROAD",
            curves.road_fractions,
            [(curves.morf, "C3", "most relevant removed"), (curves.lerf, "C2", "least relevant removed")],
            curves.random_road,
        ),
    )
    for axis, title, places, found, random in lines:
        for number, row in enumerate(random):
            axis.plot(places, row, color="0.75", linewidth=0.8, label=None if number else "at random places")
        for values, color, label in found:
            axis.plot(places, values, color=color, linewidth=2, label=label)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("share of pixels", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.set_ylim(-0.02, 1.02)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("probability", fontsize=8)


def _show(axis: Any, panel: Any, title: str) -> None:
    axis.imshow(panel)
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.set_axis_off()


def _write(axis: Any, report: TrustReport) -> None:
    """Write the reasons and warnings beside the map."""
    import textwrap

    lines = [f"! {text}" for text in report.warnings] + report.reasons
    text = "\n".join(textwrap.fill(line, 52) for line in lines)
    axis.set_axis_off()
    axis.text(0, 1, text, fontsize=7, va="top", transform=axis.transAxes, parse_math=False)
