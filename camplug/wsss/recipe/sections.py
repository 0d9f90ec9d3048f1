"""Parts that several sections of a recipe share: networks by name, thresholds, checks of a section's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camplug.errors import InputError
from camplug.models import load_model
from camplug.settings import restore_settings, update_settings
from camplug.wsss.pseudo.refine import Threshold

if TYPE_CHECKING:
    from torch import nn

BEST = re.compile(r"best on (\w+)")
OTSU = "otsu"


@dataclass(frozen=True)
class NetworkSettings:
    """Network by name.

    Args:
        model: name or file, as for `camplug.load_model`.
        checkpoint: file with a state dict.
        num_classes: number of classes of its head.
        pretrained: True loads the source's published weights; None does so if no checkpoint is given.
        mean, std: normalisation of photographs, for a network that does not know its own: one number, or one for each
            colour.
    """

    model: str = "demo"
    checkpoint: str | None = None
    num_classes: int | None = None
    pretrained: bool | None = None
    mean: float | tuple[float, float, float] | None = None
    std: float | tuple[float, float, float] | None = None


def load_named_network(settings: Any) -> nn.Module:
    """Load the network that a stage's settings name; random weights are the same in every run."""
    import torch

    named = restore_settings(NetworkSettings, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_model(
            named.model, checkpoint=named.checkpoint, num_classes=named.num_classes, pretrained=named.pretrained
        )


def read_section(value: Any, name: str, example: str | None = None) -> dict[str, Any]:
    """Return a section as a dict, an empty one where it is missing.

    Args:
        value: content of the section.
        name: its name, for messages.
        example: content to suggest where a needed section is missing; None if it may be missing.

    Raises:
        InputError: it is no mapping, or is needed and missing.
    """
    if value is None and example is not None:
        raise InputError(f"the section {name} is missing; write {example}.")
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{name} = {value!r} is no section; write its settings below it, indented.")
    return dict(value or {})


def read_backbone(section: Mapping[str, Any], where: str) -> NetworkSettings | None:
    """Return the network under `backbone` in a section; None for the recipe's classifier.

    Raises:
        InputError: it is neither "classifier" nor a network.
    """
    found = section.get("backbone", "classifier")
    if found == "classifier":
        return None
    if isinstance(found, str):
        found = {"model": found}
    if not isinstance(found, Mapping):
        raise InputError(f"{where}.backbone = {found!r}; give classifier, or a network: {{model: timm:resnet50}}.")
    return update_settings(NetworkSettings(), found, f"{where}.backbone")


def check_threshold(value: float | str | None) -> None:
    """Raise `InputError` for a value that is neither a threshold nor a way to choose one."""
    if isinstance(value, str) and value != OTSU and BEST.fullmatch(value) is None:
        raise InputError(f'threshold={value!r}; give a number, otsu, or "best on" a list of the section data.')
    if isinstance(value, (int, float)):
        Threshold(value)


def get_threshold_part(value: float | str | None) -> str | None:
    """Return the list of images that a threshold is chosen on with masks, if it is.

    >>> get_threshold_part("best on threshold"), get_threshold_part(0.3)
    ('threshold', None)
    """
    found = BEST.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else found[1]


def check_threshold_part(value: float | str | None, parts: Mapping[str, Any], section: str) -> None:
    """Raise `InputError` where a threshold is to be chosen on a list of images that the recipe does not have."""
    part = get_threshold_part(value)
    if part is not None and part not in parts:
        raise InputError(
            f"{section}.threshold = {value!r}: there is no list data.{part}; there are {', '.join(parts)}."
        )
