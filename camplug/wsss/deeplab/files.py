"""A file of a trained DeepLab network: how it is built, what its classes are called, and its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.explain.explanation import write_atomically
from camplug.explain.preprocess import Preprocess
from camplug.wsss.deeplab.network import DeepLab, rebuilt, settings_of

FORMAT = "camplug deeplab 1"


def save_deeplab(path: str | os.PathLike[str], network: DeepLab, made_with: Mapping[str, Any]) -> None:
    """Write a DeepLab network, whole or not at all; the file holds plain data and tensors only.

    Args:
        path: of the file.
        network: to be written.
        made_with: "model", the text that `camplug.load_model` builds the network under it with (None: a module of
            one's own), and "num_classes" of that network's own head.

    Raises:
        InputError: the place cannot be written.
    """
    document = {
        "format": FORMAT,
        "made_with": dict(made_with),
        "classes": list(network.classes),
        "network": settings_of(network),
        "preprocess": asdict(network.preprocess),
        "state": {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()},
    }
    write_atomically(os.fspath(path), lambda f: torch.save(document, f))


def load_deeplab(path: str | os.PathLike[str], model: nn.Module | None = None) -> DeepLab:
    """The network of a file that `save_deeplab` wrote, in evaluation mode.

    Args:
        path: of the file.
        model: the untrained network under it, where that was a module of one's own; it is kept and changed.

    Raises:
        InputError: no such file, or one of another kind.
        ModelError: the network under it cannot be built, or is another one.
    """
    from camplug.models import load_model

    name = os.fspath(path)
    document = _read(name)
    if document is None:
        raise InputError(f"{name!r} is no DeepLab network that camplug has trained; see `camplug train deeplab`.")
    made = document["made_with"]
    if model is None:
        if made.get("model") is None:
            raise ModelError(f"{name!r} was trained on a module of one's own; give it: load_deeplab(path, model).")
        model = load_model(made["model"], num_classes=made.get("num_classes"), pretrained=False)
    reads = Preprocess(**document["preprocess"])
    try:
        network = rebuilt(model, document["network"], document["classes"], reads)
        network.load_state_dict(document["state"])
    except (RuntimeError, InputError, ModelError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{name!r} does not fit {made.get('model') or type(model).__name__}: {first}") from None
    return network.eval()


def _read(name: str) -> dict[str, Any] | None:
    """What a file holds; None for any other kind of file."""
    try:
        found = torch.load(name, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no file {name!r}; `camplug train deeplab` makes it.") from None
    except Exception:  # torch.load raises nearly anything on other files
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None
