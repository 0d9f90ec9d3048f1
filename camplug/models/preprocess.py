"""Preprocessing that a model declares: size, mean, standard deviation and number of channels."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, overload

from torch import nn

from camplug.errors import InputError
from camplug.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Custom, Preprocess
from camplug.models.image_processors import find_declared_preprocess
from camplug.plug import find_size_multiple, named_layers, unwrap
from camplug.plug.layers import find_token_layers

_warned = False
_PARTS = ("visual", "patch_embed")  # modules that know the size of images


@overload
def find_preprocess(model: nn.Module, transform: None = None, *, warn: bool = True) -> Preprocess: ...
@overload
def find_preprocess(model: nn.Module, transform: Any, *, warn: bool = True) -> Preprocess | Custom: ...
def find_preprocess(model: nn.Module, transform: Any = None, *, warn: bool = True) -> Preprocess | Custom:
    """Return the preprocessing of a model.

    Sources in this order: `transform`, where a torchvision preset (`weights.transforms()`) is applied without its
    centre crop, and any other callable unchanged; the model's attribute `preprocess` (a `Preprocess`), `transforms` or
    `weights` (torchvision); its preprocessor_config.json (Hugging Face), `visual.preprocess_cfg` (open_clip) or
    `pretrained_cfg` (timm); ImageNet's values, with one warning. Transformers with a fixed input size get photographs
    resized to exactly this size, other models with their aspect ratio. Models with one channel get them in grey.

    Args:
        model: classifier.
        transform: preprocessing that takes precedence over the model's.
        warn: warn once where ImageNet's values are assumed.

    Raises:
        InputError: the transform is not callable.
    """
    inner = unwrap(model)
    if isinstance(transform, Preprocess) and transform.channels == 3:  # the default
        channels = find_channels(inner)
        return transform if channels in (None, 3) else replace(transform, channels=channels)
    if isinstance(transform, (Preprocess, Custom)):
        return transform
    own = getattr(inner, "preprocess", None)
    if transform is None and isinstance(own, Preprocess):
        return own
    channels = find_channels(inner) or 3
    multiple = find_size_multiple(inner)
    flexible = multiple > 1 or not find_token_layers(inner, named_layers(inner))
    weights: Any = getattr(inner, "weights", None)
    presets: list[Any] = [transform, getattr(inner, "transforms", None)]
    presets.append(weights.transforms() if hasattr(weights, "transforms") else None)
    for preset in presets:
        if all(hasattr(preset, name) for name in ("crop_size", "mean", "std", "interpolation")):
            side = int(preset.crop_size[0])
            mode = str(getattr(preset.interpolation, "value", preset.interpolation))
            return Preprocess((side, side), tuple(preset.mean), tuple(preset.std), mode, flexible, None, channels)
    if transform is not None:
        if not callable(transform):
            raise InputError(f"preprocess= must be callable on a PIL image; got {type(transform).__name__}.")
        return Custom(transform)
    declared = find_declared_preprocess(inner)
    if declared is not None:
        return replace(declared, keep_aspect=flexible, channels=channels)
    inner = getattr(inner, "timm_model", inner)  # in a wrapper of Hugging Face
    config = getattr(inner, "pretrained_cfg", None) or getattr(inner, "default_cfg", None)
    if config:
        return _read_timm(inner, config if isinstance(config, dict) else config.to_dict(), flexible, channels, multiple)
    size = _find_size(inner) or (224, 224)
    global _warned
    if warn and not _warned:
        _warned = True
        warnings.warn(
            "the model does not say how it wants its images; ImageNet's mean and standard deviation and "
            f"{size[0]} pixels are assumed. Give preprocess= to say otherwise.",
            stacklevel=2,
        )
    return Preprocess(size, keep_aspect=flexible, channels=channels)


def _read_timm(model: nn.Module, config: dict[str, Any], flexible: bool, channels: int, multiple: int) -> Preprocess:
    """Return the preprocessing of a configuration of timm."""
    size = tuple(config.get("input_size") or (3, 224, 224))[1:]
    return Preprocess(
        _find_size(model) or (int(size[0]), int(size[1])),
        tuple(config.get("mean") or IMAGENET_MEAN),
        tuple(config.get("std") or IMAGENET_STD),
        config.get("interpolation") or "bilinear",
        flexible and (multiple > 1 or not config.get("fixed_input_size", False)),
        None,
        channels,
        multiple,
    )


def _find_size(model: nn.Module) -> tuple[int, int] | None:
    """Return height and width from attributes of the model, its image tower, configuration or patch embedding."""
    config = getattr(model, "config", None)
    places = (model, config, getattr(config, "vision_config", None), *(getattr(model, n, None) for n in _PARTS))
    for place in places:
        for attribute in ("image_size", "img_size"):
            size = getattr(place, attribute, None)
            if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                return (size, size)
            if isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(s, int) for s in size):
                return (size[0], size[1])
    return None


def find_channels(model: nn.Module) -> int | None:
    """Return the number of a model's input channels, from its first convolution or configuration; None if unknown."""
    first: int | None = None
    made: set[int] = set()  # channels of convolutions so far; one may make three colours of grey
    for module in unwrap(model).modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels == 3 and 3 not in made:  # registered later, may run first
                return 3
            first = first or module.in_channels
            made.add(module.out_channels)
    if first is not None:
        return first
    for place in (unwrap(model), getattr(unwrap(model), "config", None)):
        count = getattr(place, "num_channels", None)
        if isinstance(count, int) and count > 0:
            return count
    return None
