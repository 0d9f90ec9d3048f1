"""Command `camplug wsss init`: a recipe for data of one's own."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.progress_display import handle_interrupt
from camplug.cli.walk_network import require_lightning
from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.plug import resolve_device

if TYPE_CHECKING:
    from camplug.wsss.recipe.starter import DataSummary, StarterSettings

HELD_OUT = ("val", "val2017", "val2014")  # splits of VOC and COCO


def init(  # noqa: PLR0917
    photos: Annotated[str, typer.Argument(help="Folder of photographs, or a data set such as voc:PATH.")],
    labels: Annotated[
        Path | None,
        typer.Argument(help="Image labels, .csv or .json.", show_default="labels.csv in the folder, or its subfolders"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the recipe.")] = Path("recipe.yaml"),
    val: Annotated[
        str | None,
        typer.Option(
            help="Data with masks to score on, such as folder:PATH; of VOC and COCO the split val.", show_default=False
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Base network of the classifier.")] = "demo",
    minutes: Annotated[float, typer.Option(min=1, help="Wanted time of the run; epochs are lowered to fit.")] = 60,
    device: common.BestDevice = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Measure steps to estimate the time.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Look at photographs and their labels, and write a commented recipe for `camplug wsss run`.

    Sizes follow the photographs and the device, epochs the number of images and --minutes.
    """
    with handle_interrupt(), common.report_errors():
        require_lightning()
        from camplug.wsss.recipe.starter import choose_settings, format_recipe, summarize_data

        if out.exists() and not overwrite:
            raise InputError(f"{str(out)!r} exists; give another file with --out, or --overwrite.")
        if out.suffix.lower() not in (".yaml", ".yml"):
            raise InputError(f"--out {str(out)!r}: a recipe is written as .yaml.")
        where = common.choose_device(device, 0)
        resolve_device(where)
        train = _describe_data(photos, labels)
        held_out = None if val is None else _choose_held_out_split(_describe_data(val, None))
        summary = summarize_data(_open_entry(train))
        if held_out is not None:
            _check_held_out(held_out, summary)
        settings, seconds = choose_settings(summary, where), None
        if probe:
            first = format_recipe(train, summary, settings, model=model, val=held_out)
            settings, seconds = _fit_time(first, settings, 60 * minutes, where)
        facts = [] if seconds is None else [f"about {_format_time(seconds)} on this machine ({where})"]
        text = format_recipe(train, summary, settings, model=model, val=held_out, facts=facts)
        write_atomically(str(out), lambda file: file.write(text.encode()))
        if as_json:
            _print_result(out, summary, settings, seconds, where)
            return
        _show_result(out, summary, settings)
        if seconds is not None:
            more = f"; more than {minutes:g} minutes, though with as few epochs as make sense"
            common.out.print(f"about {_format_time(seconds)} on {where}{more if seconds > 60 * minutes else ''}")
        common.out.print(common.escape_markup(f"next: {_make_command(out)}"), soft_wrap=True)


def _describe_data(text: str, labels: Path | None) -> dict[str, Any]:
    """Return the entry of a list of images in a recipe, with absolute paths."""
    from camplug.wsss.data.opening import list_layouts, parse_source

    path = Path(text).expanduser()
    if not text.strip():
        raise InputError("the folder of photographs is empty text; give a path.")
    if labels is not None and not labels.is_file():
        raise InputError(f"there is no file {str(labels)!r} with image labels.")
    if path.is_dir() and labels is not None:
        return {"data": f"folder:{path.resolve()}", "options": {"labels": str(labels.resolve())}}
    try:
        kind, place, options = parse_source(text)
    except InputError:
        if not path.is_dir() or list_layouts(path):
            raise
        kind, place, options = "photos", text, {}  # whose refusal says how labels are written
    if labels is not None:
        raise InputError(f"{text!r}: a file of labels goes with a folder of photographs; leave it out.")
    options = {name: _make_absolute(value, inside=place) for name, value in options.items()}
    return {"data": f"{kind}:{_make_absolute(place)}"} | ({"options": options} if options else {})


def _make_absolute(value: Any, inside: str | None = None) -> Any:
    """Return the absolute path of a file or folder that a text names.

    Args:
        value: option of a data set, or its path; anything but the path of something that exists is returned unchanged.
        inside: folder of the data set, in which the value is looked up first.
    """
    if not isinstance(value, str) or not value:
        return value
    path = Path(value).expanduser()
    if inside is not None and (not (path.suffix or path.parent.name) or (Path(inside).expanduser() / value).exists()):
        return value  # a word such as "xml", or a name that the data set resolves
    return str(path.resolve()) if path.exists() else value


def _choose_held_out_split(entry: dict[str, Any]) -> dict[str, Any]:
    """Add the split "val" to the entry of a data set that has one; without a split it would be opened as "train"."""
    if entry["data"].startswith(("voc:", "coco:")):
        for split in HELD_OUT:
            with suppress(InputError):
                _open_entry(entry | {"split": split})
                return entry | {"split": split}
    return entry


def _check_held_out(entry: dict[str, Any], summary: DataSummary) -> None:
    """Raise InputError for data that a run cannot score on."""
    from camplug.wsss.recipe.run import check_same_classes

    data = _open_entry(entry)
    if not data.has_masks:
        raise InputError(f"--val {entry['data']!r} has no masks to score on; give data with masks, or leave it out.")
    check_same_classes("--val", data.classes, "the data to train on", list(summary.classes))


def _open_entry(entry: dict[str, Any]) -> Any:
    from camplug.wsss.recipe.data import ImageList

    return ImageList(**entry).open()


def _fit_time(
    text: str, settings: StarterSettings, seconds: float, device: str
) -> tuple[StarterSettings, float | None]:
    """Estimate the time of a recipe, and lower its epochs where it takes longer."""
    import tempfile

    import yaml

    from camplug.wsss.recipe import make_recipe, plan_recipe
    from camplug.wsss.recipe.starter import fit_epochs

    def notify(stage: str) -> None:
        if common.err.is_terminal:
            common.err.print(common.escape_markup(f"probing {stage} ..."))

    with tempfile.TemporaryDirectory() as folder:
        rows = plan_recipe(make_recipe(yaml.safe_load(text)), folder, device=device, notify=notify)
    return fit_epochs(settings, rows, seconds)


def _format_time(seconds: float) -> str:
    from camplug.wsss.recipe.measure import format_seconds

    return format_seconds(seconds)


def _make_command(out: Path) -> str:
    return f"camplug wsss run {shlex.quote(str(out))}"


def _print_result(
    out: Path, summary: DataSummary, settings: StarterSettings, seconds: float | None, device: str
) -> None:
    """Print what was found and written as JSON."""
    found = {"recipe": str(out), "data": asdict(summary), "warnings": summary.list_warnings(), "device": device}
    common.print_json(found | asdict(settings) | {"seconds": seconds, "next": _make_command(out)})


def _show_result(out: Path, summary: DataSummary, settings: StarterSettings) -> None:
    """Print what was found and written."""
    height, width = summary.size
    masks = "with masks" if summary.has_masks else "without masks"
    lines = [f"{summary.images} images of about {width}x{height}, {len(summary.classes)} classes, {masks}"]
    lines += [f"  {name}: {count}" for name, count in summary.classes.items()]
    lines += [f"  without a class: {summary.unlabelled}"] if summary.unlabelled else []
    lines += [f"note: {text}" for text in summary.list_warnings()]
    epochs = ", ".join(f"{name} {count}" for name, count in settings.epochs.items())
    lines += [f"{out}: long side {settings.long_side}, epochs: {epochs}"]
    for line in lines:
        common.out.print(common.escape_markup(line), soft_wrap=True)
