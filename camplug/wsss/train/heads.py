"""Files of trained heads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from camplug.errors import InputError, LayerError
from camplug.images.preprocess import Preprocess
from camplug.images.save import write_atomically
from camplug.models import FILES
from camplug.plug import find_first_weight
from camplug.settings import restore_settings
from camplug.wsss.train.backbone import Backbone

Kind: TypeAlias = Literal["irn", "affinitynet"]
N = TypeVar("N", bound=nn.Module)
FORMAT = "camplug heads 1"
FILE_KEYS = ("model", "checkpoint")
TITLES = {"irn": "an IRNet", "affinitynet": "an AffinityNet"}


@dataclass(frozen=True)
class Heads:
    """Content of a file of trained heads.

    Attributes:
        kind: "irn" or "affinitynet".
        settings: settings of the network, as plain data.
        state: weights of the heads, without those of the classifier.
        layers: names of the classifier's layers that the heads read, finest first.
        fingerprint: digest of the classifier's weights.
        mean, std: normalisation of photographs.
        made_with: specification of the classifier: model, checkpoint, num_classes. Paths are relative to the file; see
            `find_file`.
    """

    kind: Kind
    settings: dict[str, Any]
    state: dict[str, Tensor]
    layers: list[str]
    fingerprint: str
    mean: list[float]
    std: list[float]
    made_with: dict[str, Any]


def save_heads(path: str | os.PathLike[str], network: nn.Module, made_with: Mapping[str, Any]) -> None:
    """Write trained heads atomically, as plain data and tensors.

    Args:
        path: path of the file.
        network: `IRN` or `AffinityNet`.
        made_with: specification of the classifier: model, checkpoint, num_classes.

    Raises:
        InputError: the path cannot be written.
    """
    heads: Any = network
    backbone: Backbone = heads.backbone
    document = {
        "format": FORMAT,
        "kind": heads.kind,
        "settings": asdict(heads.settings),
        "state": {name: tensor.detach().cpu() for name, tensor in heads.state_dict().items()},
        "layers": list(backbone.names),
        "fingerprint": backbone.fingerprint(),
        "mean": list(backbone.preprocess.mean),
        "std": list(backbone.preprocess.std),
        "made_with": make_paths_relative(made_with, Path(path).parent),
    }
    write_atomically(os.fspath(path), lambda file: torch.save(document, file))


def make_paths_relative(made_with: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in a specification relative to a folder, so that both can be moved together.

    Args:
        made_with: specification, whose "model" and "checkpoint" may be files; missing files stay as they are.
        folder: folder of the file that stores it.

    Returns:
        The specification, with the absolute paths under "at" for a file that is moved alone.
    """
    found, at = dict(made_with), {}
    for key in FILE_KEYS:
        value = found.get(key)
        if is_file_path(key, value) and Path(str(value)).is_file():
            at[key] = str(Path(str(value)).resolve())
            with suppress(ValueError):  # another drive of Windows
                found[key] = os.path.relpath(at[key], folder.resolve())
    return found | ({"at": at} if at else {})


def is_file_path(key: str, value: Any) -> bool:
    """Return whether a value of `made_with` is a path: a checkpoint or the file of a trained classifier."""
    return value is not None and key in FILE_KEYS and (key == "checkpoint" or str(value).endswith(FILES))


def find_file(made_with: Mapping[str, Any], key: str, heads: str | os.PathLike[str]) -> str:
    """Find a file named in the specification of heads, relative to them, at its absolute path, or relative to here.

    Args:
        made_with: specification of the classifier.
        key: "model" or "checkpoint".
        heads: path of the heads' file.

    Raises:
        InputError: the file is at none of these places.
    """
    value = str(made_with[key])
    places = (Path(heads).parent / value, Path(str(made_with.get("at", {}).get(key, value))), Path(value))
    for place in places:
        if place.is_file():
            return os.path.normpath(place)
    raise InputError(
        f"{os.fspath(heads)!r} was trained on the classifier of {value!r}, and there is no such file, neither from its "
        f"own folder nor from here; give it with --{key}."
    )


def load_heads(path: str | os.PathLike[str], backbone: Backbone | None = None, kind: Kind | None = None) -> Heads:
    """Load trained heads without executing code from the file.

    Args:
        path: path of the file.
        backbone: required backbone; None allows any.
        kind: required kind; None allows any.

    Raises:
        InputError: the file is missing or holds no heads, heads of another kind, or heads trained on another classifier
            or on other layers.
    """
    name = os.fspath(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no file {name!r}; `camplug train` makes it.") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{name!r} cannot be read ({error.strerror}).") from None
    except Exception:  # torch.load raises nearly anything on damaged files
        found = None
    try:
        if not isinstance(found, dict) or found["format"] != FORMAT or found["kind"] not in TITLES:
            raise ValueError
        heads = Heads(**{key: value for key, value in found.items() if key != "format"})
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{name!r} is no file of trained heads, or damaged; give one made by `camplug train`."
        ) from None
    if kind is not None and heads.kind != kind:
        raise InputError(f"{name!r} holds {TITLES[heads.kind]}; {TITLES[kind]} is needed.")
    if backbone is not None:
        _check_backbone(heads, backbone, name)
    return heads


def load_network(path: str | os.PathLike[str], model: nn.Module, network_type: type[N]) -> N:
    """Load the network of a file of trained heads, on the classifier's device and in evaluation mode.

    Args:
        path: path of the file.
        model: classifier that the heads were trained on.
        network_type: class of the network.

    Raises:
        InputError: the file is missing or holds no such heads, or the classifier is another one.
    """
    made: Any = network_type
    heads = load_heads(path, kind=made.kind)
    try:
        backbone = Backbone(model, heads.layers, Preprocess(mean=tuple(heads.mean), std=tuple(heads.std)))
    except LayerError as error:
        raise InputError(f"{_explain_other_classifier(heads, os.fspath(path))}: {error}") from None
    _check_backbone(heads, backbone, os.fspath(path))
    network: N = made(backbone, restore_settings(made.settings_type, heads.settings))
    network.load_state_dict(heads.state)
    weight = find_first_weight(model)
    return (network if weight is None else network.to(weight.device)).eval()


def _check_backbone(heads: Heads, backbone: Backbone, name: str) -> None:
    """Raise InputError unless the heads were trained on this backbone."""
    if heads.layers != backbone.names:
        raise InputError(
            f"the heads in {name!r} read the layers {', '.join(heads.layers)}, this backbone has "
            f"{', '.join(backbone.names)}; give Backbone(model, layers=...) the former."
        )
    if heads.fingerprint != backbone.fingerprint():
        raise InputError(
            f"{_explain_other_classifier(heads, name)}, of other weights; give that one with --model, or train the "
            "heads again."
        )


def _explain_other_classifier(heads: Heads, name: str) -> str:
    spec, checkpoint = heads.made_with.get("model"), heads.made_with.get("checkpoint")
    which = f" ({spec}" + (f" with {Path(checkpoint).name}" if checkpoint else "") + ")" if spec else ""
    return f"the heads in {name!r} were trained on another classifier{which}"
