"""Command `camplug check`: is the map of a photograph trustworthy?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.explanations import ExplainerOptions, refuse_overwriting
from camplug.cli.options import add_options, read_options
from camplug.explain import create
from camplug.images.sample import find_sample_photo
from camplug.images.save import make_file_name, save_picture
from camplug.settings import apply_values


@add_options(ExplainerOptions())
def check(  # noqa: PLR0917
    path: Annotated[Path | None, typer.Argument(help="A photograph.", show_default="a photograph of a cat")] = None,
    cls: Annotated[
        str | None, typer.Option("--class", "-c", help="Class index or name.", show_default="predicted")
    ] = None,
    method: common.MethodName = None,
    layers: common.Layers = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The picture to write.", show_default="PHOTO_METHOD_check.png"),
    ] = None,
    random: Annotated[int, typer.Option(min=19, help="Maps at random places to compare with.")] = 19,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the deletion and insertion curves.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Changed images in one forward pass.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Check whether a map is trustworthy: one verdict with its reasons, and one picture.

    The map is compared with the same map at random places (deletion, insertion), with ROAD, with the maps of other
    classes, and with those of a model whose weights are random.
    """
    with common.report_errors():
        from camplug.trust import check as check_map

        chosen = apply_values(ExplainerOptions(), read_options(given, None, ExplainerOptions()))
        network, options = chosen.load()
        if layers:
            options["layers"] = layers[0] if len(layers) == 1 else layers
        explainer = create(method or "fully", network, **options)
        photo = path or find_sample_photo()
        target = output or Path(f"{photo.stem}_{make_file_name(explainer.name)}_check.png")
        refuse_overwriting([photo], [target])
        report = check_map(
            explainer,
            photo,
            cls,
            random=random,
            steps=steps,
            batch_size=batch_size,
            multi_label=chosen.multi_label or None,
            seed=seed,
        )
        save_picture(report.picture(), str(target))
        if as_json:
            common.print_json({"image": str(photo), **report.as_dict(), "written": [str(target)]})
            return
        title = report.explanation.title(multi_label=chosen.multi_label or None).replace("\n", ": ")
        common.out.print(
            f"[bold]{report.verdict}[/]: {common.escape_markup(f'{explainer.name} of {title}')}", soft_wrap=True
        )
        for text in report.warnings:
            common.out.print(f"[yellow]warning:[/] {common.escape_markup(text)}", soft_wrap=True)
        for text in report.reasons:
            common.out.print(f"- {common.escape_markup(text)}", soft_wrap=True)
        common.out.print(f"written: {target}", soft_wrap=True)
