"""Command `camplug` with all its commands."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

import camplug
from camplug.cli import (
    average_seeds,
    check,
    compare,
    evaluate,
    explain,
    export,
    fit_prototypes,
    instances,
    label_exchange,
    listing,
    pseudo_labels,
    seeds,
    segment,
    train,
    web_app,
    wsss,
)

app = typer.Typer(
    name="camplug",
    help="Show where an image classifier looks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("explain")(explain.explain)
app.command("compare")(compare.compare)
app.command("check")(check.check)
app.command("app")(web_app.web_app)
app.command("fit-prototypes")(fit_prototypes.fit_prototypes)
app.command("seeds")(seeds.seeds)
app.command("average-seeds")(average_seeds.average_seeds)
app.add_typer(train.app)
app.command("pseudo-labels")(pseudo_labels.pseudo_labels)
app.command("instances")(instances.instances)
app.command("segment")(segment.segment)
app.command("export")(export.export)
app.command("export-labels")(label_exchange.export_labels)
app.command("import-labels")(label_exchange.import_labels)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(wsss.app)
app.command("methods")(listing.methods)
app.command("models")(listing.models)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(camplug.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `camplug` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console of few letters is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    app()
