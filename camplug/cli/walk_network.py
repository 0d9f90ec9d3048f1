"""Network of a random walk: its options, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.errors import InputError


@dataclass(frozen=True)
class WeightsOptions:
    """Weights of a walk's network, and its classifier.

    Raises:
        InputError: less than one class.
    """

    weights: Annotated[
        Path | None, typer.Option(help="Heads made by `camplug train irn` or `camplug train affinitynet`.")
    ] = None
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As for `camplug explain`.", show_default="the one that the weights name"),
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="State dict to load into the model.", show_default="the one that the weights name"),
    ] = None
    num_classes: common.NumClasses = None

    def __post_init__(self) -> None:
        common.check_num_classes(self.num_classes)


def load_walk_network(options: WeightsOptions, device: str) -> Any:
    """Load the network of the weights on the classifier that they name, unless another one is given.

    Raises:
        InputError: lightning is missing; the classifier is unknown, or not the one of the weights.
    """
    from camplug.wsss.train.heads import FILE_KEYS, find_file, is_file_path, load_heads

    require_lightning()
    from camplug.wsss.recipe.walks import LEARNED_WALKS

    weights = str(options.weights)
    heads = load_heads(weights)
    own = {"model": options.model, "checkpoint": options.checkpoint, "num_classes": options.num_classes}
    given = {name: value for name, value in own.items() if value is not None}
    known = heads.made_with | given
    if known.get("model") is None:
        raise InputError(f"{weights!r} does not name its classifier; give it with --model.")
    for key in FILE_KEYS:
        if key not in given and is_file_path(key, known.get(key)):
            known[key] = find_file(heads.made_with, key, weights)
    checkpoint = None if known.get("checkpoint") is None else Path(str(known["checkpoint"]))
    model = common.load_network(str(known["model"]), checkpoint, known.get("num_classes"), device)
    return LEARNED_WALKS[heads.kind].load(Path(weights), model)


def require_lightning() -> None:
    """Raise `InputError` if the package lightning is not installed."""
    if find_spec("lightning") is None:
        raise InputError('this needs the package lightning; install it with: pip install "camplug[train]".')
