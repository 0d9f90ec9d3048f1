"""Options, error handling, devices and printing shared by the commands."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import torch
import typer
from rich.console import Console

from camplug.errors import CamplugError, InputError
from camplug.models import load_model
from camplug.plug import resolve_device
from camplug.wsss.seeds.predicted_labels import PROBABILITY

if TYPE_CHECKING:
    from torch import nn

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Colour: TypeAlias = float | tuple[float, float, float]
MODEL_HELP = "demo, timm:NAME, torchvision:NAME, hf:NAME, open_clip:ARCH/TAG or import:PACKAGE.MODULE:CALLABLE."
MEAN_HELP = "Normalisation mean, if the model does not define it: one number, or three with commas."
STD_HELP = "Normalisation standard deviation, if the model does not define it: one number, or three with commas."
Checkpoint: TypeAlias = Annotated[Path | None, typer.Option(help="State dict to load into the model.")]
NumClasses: TypeAlias = Annotated[int | None, typer.Option(help="Classes of the model's head.")]
MethodName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--method",
        "--explainer",
        help='See `camplug methods`; "MultiView(FullyCAM)" with a wrapper.',
        show_default="fully",
    ),
]
Layers: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="Layer name or glob, or last, convs, stages, blocks; repeat.")
]
LongSide: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Longer side in pixels to which photographs are resized for the model.",
        show_default="the model's own size",
    ),
]
ValidationSplit: TypeAlias = Annotated[
    str | None, typer.Option(help="Part of the validation data, as for --split.", show_default="train")
]
Probability: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="With --labels predicted: the best class and those above this probability.",
        show_default=f"{PROBABILITY:g}",
    ),
]
Split: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Part of VOC (train, val, a list file) or COCO (train2014, val2014).", show_default="train"),
]
BestDevice: TypeAlias = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="cuda where there is one")
]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="TOML or YAML file with any of these options; those of the command line override it."),
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace what --out holds of other weights, settings or data.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn errors into one sentence and exit code 2; CAMPLUG_DEBUG=1 shows the traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (typer.Exit, typer.Abort):  # both are RuntimeErrors
            raise
        except CamplugError as error:
            _give_up(str(error), error)
        except Exception as error:  # of a model of the user's, say
            first = (str(error).strip().splitlines() or ["no message"])[0]
            _give_up(f"{type(error).__name__}: {first} (CAMPLUG_DEBUG=1 shows where)", error)


def _give_up(text: str, error: BaseException) -> None:
    if os.environ.get("CAMPLUG_DEBUG"):
        raise error
    err.print(f"[bold red]error:[/] {escape_markup(text)}", soft_wrap=True)
    raise typer.Exit(2)


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    err.print(f"[yellow]note:[/] {escape_markup(str(message))}", soft_wrap=True)


def escape_markup(text: str) -> str:
    """Return text that rich prints unchanged."""
    from rich.markup import escape

    return escape(text)


def check_num_classes(count: int | None) -> None:
    """Raise `InputError` for less than one class."""
    if count is not None and count < 1:
        raise InputError(f"num_classes = {count}; give at least 1.")


@dataclass(frozen=True)
class PromptOptions:
    """Texts as classes, for models of images and texts.

    Args:
        prompts: texts that are the classes of a model of images and texts (CLIP, SigLIP).
        background_prompts: texts that the prompts compete with.
        template: sentence around every text, with {} in its place.

    Raises:
        InputError: background or template without prompts.
    """

    prompts: tuple[str, ...] = ()
    background_prompts: tuple[str, ...] = ()
    template: str = "{}"

    def __post_init__(self) -> None:
        if not self.prompts and (self.background_prompts or self.template != "{}"):
            raise InputError('--background-prompts and --template belong to prompts; add --prompts "a dog,a cat".')

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a model, or the classifier of its prompts.

        Raises:
            InputError: the model needs prompts.
        """
        from camplug.models import Prompts
        from camplug.models.towers import has_text_tower

        if self.prompts:
            return Prompts(model, self.prompts, background=self.background_prompts, templates=[self.template]).eval()
        if has_text_tower(model):
            raise InputError(
                f'this {type(model).__name__} has no classes of its own; give them as texts: --prompts "a dog,a cat".'
            )
        return model


def load_network(
    model: str,
    checkpoint: Path | None,
    num_classes: int | None,
    device: str,
    seed: int = 0,
    *,
    prompts: PromptOptions | None = None,
) -> nn.Module:
    """Load a model on a device; weights that begin at random depend on the seed alone.

    Raises:
        InputError: no such device or model, or a model of images and texts without prompts.
    """
    return (prompts or PromptOptions()).apply(load_bare_network(model, checkpoint, num_classes, device, seed))


def load_bare_network(
    model: str, checkpoint: Path | None, num_classes: int | None, device: str, seed: int = 0
) -> nn.Module:
    """Load a model as `load_network` does; a model of images and texts has no classes yet.

    Raises:
        InputError: no such device or model.
    """
    where = resolve_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return load_model(model, checkpoint=checkpoint, num_classes=num_classes).to(where)


def choose_device(name: str | None, rank: int) -> str:
    """Return the name of a process's device: its own one of several CUDA devices for "cuda" or None."""
    count = torch.cuda.device_count()
    if name not in (None, "cuda") or not count:
        return name or "cpu"
    local = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{(int(local) if local.isdecimal() else rank) % count}"


@contextmanager
def show_progress(text: str, total: int, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal's standard error; yields a function to call after each step."""
    if not (shown and err.is_terminal):  # elsewhere a bar would only fill the log
        yield lambda: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)


def show_broken(broken: list[tuple[str, str]]) -> None:
    """Print the skipped images with the reasons."""
    for name, error in broken:
        text = error if name in error else f"{name}: {error}"
        err.print(f"[bold red]skipped:[/] {escape_markup(text)}", soft_wrap=True)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
