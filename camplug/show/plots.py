"""Line plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from camplug.errors import InputError
from camplug.show.figures import render_figure

if TYPE_CHECKING:
    from PIL.Image import Image


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    x_label: str = "",
    y_label: str = "",
    title: str = "",
    mark: float | None = None,
) -> Image:
    """Plot lines over common x values.

    Args:
        x: n values.
        lines: n values per line (nan: gap) by name; an empty name gets no legend entry.
        x_label, y_label, title: texts of axes and title.
        mark: x value of a vertical line.

    Raises:
        InputError: a line has another length than x.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), dpi=110, layout="constrained")
    axis = figure.subplots()
    for name, values in lines.items():
        if len(values) != len(x):
            raise InputError(f"the line {name!r} has {len(values)} values for {len(x)} places.")
        axis.plot(x, values, label=name or None)
    if mark is not None:
        axis.axvline(mark, color="grey", linestyle="--", linewidth=1)
        axis.annotate(f" {mark:.4g}", (mark, 0), xycoords=("data", "axes fraction"), va="bottom", fontsize=8)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.grid(alpha=0.3)
    if any(lines):
        axis.legend(fontsize=8)
    return render_figure(figure)
