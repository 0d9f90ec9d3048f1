"""What the commands share: options, plain errors, loading, the demo photograph, printing."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import torch
import typer
from rich.console import Console

from camplug.cli.numbers import read_colour
from camplug.errors import CamplugError, InputError
from camplug.explain.explanation import Explanation
from camplug.explain.photo import SUFFIXES
from camplug.models import load_model

if TYPE_CHECKING:
    from torch import nn

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Model: TypeAlias = Annotated[
    str, typer.Option("--model", "-m", help="demo, timm:NAME, torchvision:NAME or import:PACKAGE.MODULE:CALLABLE.")
]
Checkpoint: TypeAlias = Annotated[Path | None, typer.Option(help="State dict to load into the model.")]
NumClasses: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Classes of the model's head.")]
ClassNames: TypeAlias = Annotated[Path | None, typer.Option(help="Text file with one class name per line.")]
Classes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--class", "-c", help="Class index or name; repeat for more.", show_default="predicted"),
]
Mean: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Normalisation mean, if the model does not know its own: one number, or three with commas."),
]
Std: TypeAlias = Annotated[str | None, typer.Option(help="Normalisation standard deviation, likewise.")]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
MultiLabel: TypeAlias = Annotated[bool, typer.Option("--multi-label", help="Probabilities by sigmoid, not softmax.")]
Evidence: TypeAlias = Annotated[str, typer.Option(help="positive (what speaks for the class) or negative (against).")]
LongSide: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Pixels of the longer side as the model sees it.", show_default="the model's own size"),
]
Split: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Part of VOC (train, val, a list file) or COCO (train2014, val2014).", show_default="train"),
]
Data: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="voc:PATH, coco:PATH, folder:PATH, scenes:COUNT, or a path; options follow as in "
        "'voc:PATH?masks=SegmentationClassAug&classes=names.txt'.",
        show_default="none, one must be given",
    ),
]
BestDevice: TypeAlias = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="cuda where there is one")
]
Amp: TypeAlias = Annotated[bool | None, typer.Option(help="Mixed precision on CUDA.", show_default="yes")]
AllowMissing: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--allow-missing/--refuse-missing",
        help="Train although more than 5 % of the photographs (or their image labels) cannot be read.",
        show_default="refuse",
    ),
]
Config: TypeAlias = Annotated[
    Path | None, typer.Option(help="TOML or YAML file with any of these options; the command line comes first.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace what --out holds of other weights, settings or data.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@contextmanager
def plain_errors() -> Iterator[None]:
    """One sentence and exit code 2 for everything that goes wrong; CAMPLUG_DEBUG=1 shows the traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (typer.Exit, typer.Abort):  # both are RuntimeErrors
            raise
        except CamplugError as error:
            _give_up(str(error), error)
        except (OSError, RuntimeError, MemoryError, ImportError) as error:
            first = (str(error).strip().splitlines() or ["no message"])[0]
            _give_up(f"{type(error).__name__}: {first} (CAMPLUG_DEBUG=1 shows where)", error)


def _give_up(text: str, error: BaseException) -> None:
    if os.environ.get("CAMPLUG_DEBUG"):
        raise error
    err.print(f"[bold red]error:[/] {escaped(text)}", soft_wrap=True)
    raise typer.Exit(2)


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    err.print(f"[yellow]note:[/] {escaped(str(message))}", soft_wrap=True)


def escaped(text: str) -> str:
    """Text that rich prints as it is."""
    from rich.markup import escape

    return escape(text)


def load(model: str, checkpoint: Path | None, num_classes: int | None, device: str, seed: int = 0) -> nn.Module:
    """The model on its device; weights that begin at random are the seed's.

    Raises:
        InputError: no such device.
    """
    where = device_named(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return load_model(model, checkpoint=checkpoint, num_classes=num_classes).to(where)


def device_named(name: str) -> torch.device:
    """A device that there is.

    Raises:
        InputError: there is none of this name.
    """
    try:
        where = torch.device(name)
        torch.empty(0, device=where).cpu()
    except (RuntimeError, AssertionError):
        has = "cpu" + (f", cuda ({torch.cuda.device_count()})" if torch.cuda.is_available() else "")
        raise InputError(f"the device {name!r} is not available here; there is: {has}.") from None
    return where


def explainer_options(
    model: nn.Module,
    class_names: Path | None,
    mean: Any,
    std: Any,
    long_side: int | None = None,
    *,
    evidence: str = "positive",
) -> dict[str, Any]:
    """Keyword arguments for an explainer from the command line's options."""
    from dataclasses import replace

    from camplug.explain.preprocess import Preprocess, find_preprocess

    options: dict[str, Any] = {} if evidence == "positive" else {"evidence": evidence}
    if class_names is not None:
        try:
            options["class_names"] = class_names.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{str(class_names)!r} cannot be read as a text file of class names.") from None
    if mean is not None or std is not None or long_side is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the numbers are being given
            base = find_preprocess(model)
        assert isinstance(base, Preprocess)
        options["preprocess"] = replace(
            base,
            mean=read_colour("mean", mean) or base.mean,
            std=read_colour("std", std) or base.std,
            long_side=long_side,
        )
    return options


def demo_photo() -> Path:
    """The photograph of a cat that scikit-image ships.

    Raises:
        InputError: scikit-image is not installed.
    """
    found = find_spec("skimage")
    photo = Path(str(found.origin)).parent / "data" / "chelsea.png" if found and found.origin else None
    if photo is None or not photo.exists():
        raise InputError(
            "without a photograph the demo's own is explained, which comes with scikit-image; install it with: "
            'pip install "camplug[demo]", or give a photograph.'
        )
    return photo


def images_in(paths: list[Path], results: Path) -> tuple[list[Path], bool]:
    """All image files that the given files and folders name, and whether this is one photograph.

    What an earlier run wrote into the folder `results` is left out of folders.

    Raises:
        InputError: a path that does not exist, or a folder without an image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if results.resolve() != path.resolve():
                inside = [p for p in inside if results.resolve() not in p.resolve().parents]
            if not inside:
                raise InputError(f"the folder {str(path)!r} holds no image ({', '.join(SUFFIXES)}).")
            found += inside
        elif len(paths) > 1 or path.exists():
            found.append(path)
        else:
            raise InputError(f"there is no file {str(path)!r}.")
    return found, len(paths) == 1 and not paths[0].is_dir()


def refuse_overwriting(photos: list[Path], targets: list[Path]) -> None:
    """Make sure that no result replaces a photograph.

    Raises:
        InputError: a target is one of the photographs.
    """
    kept = {photo.resolve() for photo in photos}
    for target in targets:
        if target.resolve() in kept:
            raise InputError(f"{str(target)!r} is the photograph itself; write the result to another place with --out.")


def summary(path: Path, result: Explanation, written: list[str], multi_label: bool) -> dict[str, Any]:
    """What one explanation says, for `--json` and for tables."""
    inclusive = multi_label or None  # without the option as far as the model tells
    return {
        "image": str(path),
        "size": list(result.image.size),
        "method": result.method,
        "evidence": result.evidence,
        "outputs": result.link,
        "probabilities": result.probability_kind(inclusive),
        "explained": [
            {
                "index": int(index),
                "name": name,
                "probability": result.probability(k, multi_label=inclusive),
                "output": score,
                "boxes": boxes,
            }
            for k, (index, name, score, boxes) in enumerate(
                zip(result.classes, result.names, result.scores, result.boxes(), strict=True)
            )
        ],
        "top": [{"index": int(i), "name": n, "probability": p} for i, n, p in result.top(multi_label=inclusive)],
        "written": written,
    }


def show_top(entry: dict[str, Any]) -> None:
    """Print the predicted classes of one image as a table."""
    from rich.table import Table

    table = Table(title=f"{Path(entry['image']).name}, {entry['size'][0]}x{entry['size'][1]}", title_justify="left")
    table.add_column("class", justify="right")
    table.add_column("name")
    table.add_column(f"probability ({entry['probabilities']})", justify="right")
    table.add_column("explained")
    explained = {e["name"] for e in entry["explained"]}  # both sides of one output have one index
    listed = entry["top"] + [e for e in entry["explained"] if e["name"] not in {t["name"] for t in entry["top"]}]
    for row in listed:
        mark = ("against" if entry["evidence"] == "negative" else "yes") if row["name"] in explained else ""
        table.add_row(str(row["index"]), escaped(row["name"]), f"{row['probability']:.1%}", mark)
    out.print(table)


@contextmanager
def progress(text: str, total: int, shown: bool = True) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal's standard error; yields what to call after each step."""
    if not (shown and err.is_terminal):  # elsewhere a bar would only fill the log
        yield lambda: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)


def show_broken(broken: list[tuple[str, str]]) -> None:
    """Print what was skipped, and why."""
    for name, error in broken:
        text = error if name in error else f"{name}: {error}"
        err.print(f"[bold red]skipped:[/] {escaped(text)}", soft_wrap=True)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
