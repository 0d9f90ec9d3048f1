"""Command `camplug compare`: the maps of several methods in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from torch import nn

from camplug.cli import common
from camplug.cli.explanations import ExplainerOptions, refuse_overwriting, show_classes, summarize
from camplug.cli.options import add_options, read_options
from camplug.errors import InputError
from camplug.explain import create, list_methods
from camplug.explain.base import Explainer
from camplug.explain.registry import get_method
from camplug.explain.side_by_side import explain_by_methods, list_quick_methods
from camplug.images.sample import find_sample_photo
from camplug.images.save import save_picture
from camplug.settings import apply_values
from camplug.show import grid


@add_options(ExplainerOptions())
def compare(  # noqa: PLR0917
    path: Annotated[Path | None, typer.Argument(help="A photograph.", show_default="a photograph of a cat")] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", "-c", help="Class index or name.", show_default="predicted")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names, wildcards or wrapped methods, separated by commas.",
            show_default="all but those of many passes",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")] = Path("camplug_compare.png"),
    measure: Annotated[
        bool, typer.Option("--check", help="Measure how faithful each map is: deletion, insertion, ROAD, ...")
    ] = False,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Explain one photograph with several methods side by side; a method that cannot work on the model is named."""
    with common.report_errors():
        if classes is not None and len(classes) > 1:
            raise InputError(
                f"--class is given {len(classes)} times, and one picture compares methods on one class; call the "
                "command once for each."
            )
        chosen = apply_values(ExplainerOptions(), read_options(given, None, ExplainerOptions()))
        network, options = chosen.load()
        names = _choose_methods(methods, network)
        photo = path or find_sample_photo()
        refuse_overwriting([photo], [output])
        makers = {name: partial(create, name, network, **options) for name in names}
        found, refused = explain_by_methods(makers, photo, classes[0] if classes else None)
        results = [result for _, result in found]
        first = results[0]
        maps, titles = [r.maps[0].numpy() for r in results], [r.method for r in results]
        title = first.title(multi_label=chosen.multi_label or None).replace("\n", ": ")
        save_picture(grid(np.asarray(first.image), maps, titles, title=title), str(output))
        entry = summarize(photo, first, [str(output)], chosen.multi_label)
        measured = _measure_maps([explainer for explainer, _ in found], photo, int(first.classes[0])) if measure else {}
        if as_json:
            document = {**entry, "methods": [r.method for r in results], "refused": refused}
            common.print_json(document | ({"metrics": measured} if measure else {}))
            return
        show_classes(entry)
        _show_metrics(measured)
        for r in refused:
            common.err.print(f"[yellow]left out:[/] {r['method']}: {common.escape_markup(r['error'])}", soft_wrap=True)
        common.out.print(f"written: {output}", soft_wrap=True)


def _choose_methods(methods: str | None, network: nn.Module) -> list[str]:
    """Return the names of methods and wrapped methods; by default all that fit the model and take few passes.

    Raises:
        InputError: no method has one of the names.
    """
    if methods is None:
        names = list_quick_methods(network)
    else:
        parts = split_methods(methods)
        names = [n for p in parts for n in list_methods(p) or [p if "(" in p else get_method(p).name]]
    if not names:
        raise InputError(f"no method matches {methods!r}; available are {', '.join(list_methods(fitted=True))}.")
    return list(dict.fromkeys(names))


METRICS = ("deletion", "insertion", "road", "confidence_drop", "sparseness")


def _measure_maps(explainers: Sequence[Explainer], photo: Path, wanted: int) -> dict[str, dict[str, float]]:
    """Return the metrics of each explainer's map of a photograph, by method and metric."""
    from camplug.explain.photographs import read_input
    from camplug.trust import Trust

    trust = Trust({e.name: e for e in explainers}, METRICS)
    trust.add(read_input(explainers[0], photo)[1][None], wanted)
    return {e: {m: float(trust.values(e, m)[0]) for m in METRICS} for e in trust.explainers}


def _show_metrics(measured: Mapping[str, Mapping[str, float]]) -> None:
    """Print the metrics as a table; the best value of each is bold."""
    from rich.table import Table

    from camplug.trust.registry import find_metrics

    if not measured:
        return
    metrics = find_metrics(METRICS)
    table = Table("method", title="faithfulness: lower (-) or higher (+) is better", title_justify="left")
    best = {}
    for metric in metrics:
        table.add_column(f"{metric.name} ({'-' if metric.better == 'lower' else '+'})", justify="right")
        choose = min if metric.better == "lower" else max
        best[metric.name] = choose(row[metric.name] for row in measured.values())
    for name, row in measured.items():
        marks = {m: "[bold]{:.3f}[/]" if row[m] == best[m] else "{:.3f}" for m in best}
        table.add_row(common.escape_markup(name), *(marks[m].format(row[m]) for m in best))
    common.out.print(table)


def split_methods(text: str) -> list[str]:
    """Return the parts between commas outside of brackets.

    >>> split_methods("cam, MultiView(FullyCAM, (1, 2))")
    ['cam', 'MultiView(FullyCAM, (1, 2))']
    """
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found if part.strip()]
