"""Command `camplug wsss`: weakly supervised segmentation by a recipe, from image labels to a segmentation network."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from camplug.cli import common
from camplug.cli.progress_display import handle_interrupt
from camplug.cli.walk_network import require_lightning
from camplug.cli.wsss_init import init
from camplug.errors import InputError
from camplug.wsss.store.processes import get_shard

if TYPE_CHECKING:
    from camplug.wsss.recipe import Recipe, Row

app = typer.Typer(
    name="wsss",
    help="Run all stages from image labels to a segmentation network.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("init")(init)

DEMO = "scenes"
Out: TypeAlias = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the run.", show_default="runs/RECIPE")
]
Set: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="SECTION.SETTING=VALUE in place of the recipe's value; repeat for more.", show_default=False
    ),
]
DataRoot: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Value of ${NAME} in the recipe's data.", show_default="the variable of that name"),
]
Workers: TypeAlias = Annotated[int, typer.Option(min=0, help="Processes that load images in trainings.")]
Dry: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Print the stages and their costs; do nothing.")]
Probe: TypeAlias = Annotated[
    bool,
    typer.Option("--probe/--no-probe", help="Measure steps first, to estimate the time and with --dry-run all costs."),
]
Open: TypeAlias = Annotated[bool, typer.Option("--open/--no-open", help="Show the report in a browser at the end.")]


@app.command("run")
def run(  # noqa: PLR0917
    recipe: Annotated[Path, typer.Argument(help="A .yaml or .toml file, or a name of `camplug wsss recipes`.")],
    out: Out = None,
    set_: Set = None,
    data_root: DataRoot = None,
    device: common.BestDevice = None,
    workers: Workers = 0,
    dry_run: Dry = False,
    probe: Probe = True,
    open_: Open = False,
    as_json: common.AsJson = False,
) -> None:
    """Run a recipe: classifier, seeds, refinement, pseudo-labels, DeepLab, scores; writes OUT/report.html, .json, .md.

    If it is stopped, the same command continues. After a change only the stages that depend on it run again.
    Under torchrun the processes share all stages: torchrun --nproc-per-node 2 -m camplug wsss run ...
    Broken images are listed in the report, exit code 1.
    """
    with handle_interrupt(), common.report_errors():
        require_lightning()
        from camplug.wsss.recipe import read_recipe

        found = read_recipe(recipe, set_ or (), data_root)
        folder = Path("runs") / found.name if out is None else out
        if dry_run:
            _plan_recipe(found, folder, probe, device, as_json)
        else:
            _run_recipe(found, folder, device, workers, probe=probe, show=open_, as_json=as_json)


@app.command("demo")
def demo(  # noqa: PLR0917
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("runs/demo"),
    set_: Set = None,
    device: common.BestDevice = None,
    dry_run: Dry = False,
    open_: Open = True,
    as_json: common.AsJson = False,
) -> None:
    """Run all stages on generated scenes, in a few minutes and without a download, and show the report.

    The recipe is "scenes" of `camplug wsss recipes`. If it is stopped, the same command continues.
    """
    with handle_interrupt(), common.report_errors():
        require_lightning()
        from camplug.wsss.recipe import read_recipe

        found = read_recipe(DEMO, set_ or ())
        if dry_run:
            _plan_recipe(found, out, True, device, as_json)
        else:
            _run_recipe(found, out, device, 0, probe=True, show=open_ and not as_json, as_json=as_json)


@app.command("recipes")
def recipes(as_json: common.AsJson = False) -> None:
    """List the recipes that come with camplug; to change one, copy it from the folder printed at the end."""
    with common.report_errors():
        require_lightning()
        import camplug.wsss.recipe
        from camplug.wsss.recipe import list_recipes

        found = list_recipes()
        folder = Path(str(camplug.wsss.recipe.__file__)).parent / "recipes"
        if as_json:
            common.print_json({"folder": str(folder), "recipes": found})
            return
        from rich.table import Table

        table = Table("recipe", "title")
        for name, title in found.items():
            table.add_row(common.escape_markup(name), common.escape_markup(title))
        common.out.print(table)
        common.out.print(common.escape_markup(str(folder)), soft_wrap=True)


def _run_recipe(
    recipe: Recipe, out: Path, device: str | None, workers: int, *, probe: bool, show: bool, as_json: bool
) -> None:
    """Run a recipe and print its scores."""
    from camplug.cli.run_display import RunDisplay
    from camplug.wsss.recipe import run_recipe

    rank, _ = get_shard()
    watch, where = RunDisplay(as_json or rank > 0), common.choose_device(device, rank)
    report = run_recipe(recipe, out, device=where, workers=workers, estimate=probe and not as_json, watch=watch)
    if rank:
        return
    page = (out / "report.html").resolve()
    broken = sum(len(row["broken"]) for row in report["stages"])
    if as_json:
        common.print_json(report)
    else:
        _show_scores(report)
        for line in (f"report: {page}", *report["next"]):
            common.out.print(common.escape_markup(line), soft_wrap=True)
    if show and _has_display():
        import webbrowser

        webbrowser.open(page.as_uri())
    if broken:
        common.err.print(f"[bold red]skipped:[/] {broken} images at some stage; the report lists them.")
        raise typer.Exit(1)


def _show_scores(report: dict[str, Any]) -> None:
    if not report["scores"]:
        return
    from rich.table import Table

    table = Table("product", "list")
    for column in ("mIoU", "threshold"):
        table.add_column(column, justify="right")
    for score in report["scores"]:
        value = score["miou"][score["convention"]]
        table.add_row(
            score["stage"].removeprefix("evaluate "),
            score["list"],
            "-" if value is None else f"{100 * value:.1f}",
            f"{score['threshold']:.3g}" if "threshold" in score else "",
        )
    common.out.print(table)


def _has_display() -> bool:
    """Return whether a browser can show a page."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _plan_recipe(recipe: Recipe, out: Path, probe: bool, device: str | None, as_json: bool) -> None:
    """Print the stages of a run and their costs."""
    from dataclasses import asdict

    from camplug.wsss.recipe import plan_recipe

    where = common.choose_device(device, 0)

    def notify(stage: str) -> None:
        if common.err.is_terminal and not as_json:
            common.err.print(common.escape_markup(f"probing {stage} ..."))

    rows = plan_recipe(recipe, out, probe=probe, device=where, notify=notify)
    free = shutil.disk_usage(next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())).free
    total = {key: sum(getattr(row, key) or 0 for row in rows) for key in ("seconds", "bytes")}
    if as_json:
        common.print_json(
            {"recipe": recipe.name, "device": where, "stages": [asdict(row) for row in rows]}
            | {f"total_{key}": value if probe else None for key, value in total.items()}
            | {"free_bytes": free}
        )
        return
    _show_plan(rows, probe)
    if probe:
        common.out.print(
            f"about {_format_time(total['seconds'])} on {where} in one process, {_format_size(total['bytes'])} of disk "
            f"({_format_size(free)} free). Measured: an image, or one training step with two images at the real "
            "crop, of networks without their weights; scaled: all that follows from the numbers of images, epochs and "
            "batches, and what the notes say.",
            soft_wrap=True,
        )
        if total["bytes"] > free:
            raise InputError(
                f"{str(out)!r}: the disk has {_format_size(free)} free, and the run needs about more than that."
            )


def _show_plan(rows: list[Row], probe: bool) -> None:
    from rich.table import Table

    table = Table(padding=(0, 0, 0, 1))
    table.add_column("stage")  # the only column that may wrap, so that narrow consoles show the notes
    table.add_column("state", no_wrap=True)
    for column in ("images", *(("time", "disk", "memory") if probe else ())):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("notes", style="dim", no_wrap=True)
    notes: dict[str, str] = {}  # numbers of texts
    for row in rows:
        images = ("?" if row.images is None else f"{row.images:,}") + (f" x {row.epochs}" if row.epochs else "")
        costs = [_format_time(row.seconds), _format_size(row.bytes), _format_size(row.memory)] if probe else []
        marks = " ".join(notes.setdefault(text, str(len(notes) + 1)) for text in row.notes)
        table.add_row(row.stage, row.state, images, *costs, marks)
    common.out.print(table)
    for text, mark in notes.items():
        common.out.print(common.escape_markup(f"({mark}) {text}"), soft_wrap=True)


def _format_time(seconds: float | None) -> str:
    from camplug.wsss.recipe.measure import format_seconds

    return "-" if seconds is None else format_seconds(seconds)


def _format_size(count: float | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
