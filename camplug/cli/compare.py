"""Command `camplug compare`: the maps of several methods in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from camplug.cli import common
from camplug.cli.explanations import ExplainerOptions, find_demo_photo, refuse_overwriting, show_classes, summarize
from camplug.cli.options import add_options, read_options
from camplug.errors import CamplugError, InputError
from camplug.explain import create, list_methods
from camplug.explain.explanation import Explanation
from camplug.explain.registry import get_method
from camplug.images.save import save_picture
from camplug.settings import apply_values
from camplug.show import grid


@add_options(ExplainerOptions())
def compare(
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
        if methods is None:
            names = [n for n in list_methods() if not get_method(n).needs_many_passes]
        else:
            parts = split_methods(methods)
            names = [n for p in parts for n in list_methods(p) or [p if "(" in p else get_method(p).name]]
        if not names:
            raise InputError(f"no method matches {methods!r}; available are {', '.join(list_methods())}.")
        photo = path or find_demo_photo()
        refuse_overwriting([photo], [output])
        wanted: Any = classes[0] if classes else None
        results: list[Explanation] = []
        refused: list[dict[str, str]] = []
        for name in dict.fromkeys(names):
            try:
                result = create(name, network, **options).explain(photo, wanted)
                assert isinstance(result, Explanation)
            except CamplugError as error:
                if not results and len(names) == 1:
                    raise
                refused.append({"method": name, "error": str(error)})
                continue
            results.append(result)
            wanted = result.classes[0]
        if not results:
            raise CamplugError(refused[0]["error"])
        first = results[0]
        maps, titles = [r.maps[0].numpy() for r in results], [r.method for r in results]
        title = first.title(multi_label=chosen.multi_label or None).replace("\n", ": ")
        save_picture(grid(np.asarray(first.image), maps, titles, title=title), str(output))
        entry = summarize(photo, first, [str(output)], chosen.multi_label)
        if as_json:
            common.print_json({**entry, "methods": [r.method for r in results], "refused": refused})
            return
        show_classes(entry)
        for r in refused:
            common.err.print(f"[yellow]left out:[/] {r['method']}: {common.escape_markup(r['error'])}", soft_wrap=True)
        common.out.print(f"written: {output}", soft_wrap=True)


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
