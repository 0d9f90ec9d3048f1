"""Preprocessing that Hugging Face and open_clip models declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from camplug.errors import InputError
from camplug.images.preprocess import Preprocess

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic")  # by PIL's numbers


def find_declared_preprocess(model: nn.Module) -> Preprocess | None:
    """Return the preprocessing that a Hugging Face or open_clip model declares; None without one.

    That of Hugging Face is read from preprocessor_config.json, in the folder or the cache that the model came from.

    Raises:
        InputError: it does something other than to resize and normalise.
    """
    declared = getattr(getattr(model, "visual", None), "preprocess_cfg", None)
    if isinstance(declared, Mapping) and {"size", "mean", "std"} <= declared.keys():
        mode = str(declared.get("interpolation", "bicubic"))
        mode = mode if mode in _FILTERS else "bicubic"  # "random" chooses one in training
        return Preprocess(_read_size(declared["size"]), tuple(declared["mean"]), tuple(declared["std"]), mode)
    config = _read_processor_config(model)
    return None if config is None else read_processor(config)


def _read_processor_config(model: nn.Module) -> dict[str, Any] | None:
    """Return the content of a Hugging Face model's preprocessor_config.json; None without one."""
    name = getattr(model, "name_or_path", None)
    if not isinstance(name, str) or not name or not type(model).__module__.startswith("transformers."):
        return None
    from transformers.image_processing_utils import BaseImageProcessor

    try:
        config, _ = BaseImageProcessor.get_image_processor_dict(name, local_files_only=True)
    except OSError:
        return None
    return dict(config)


def read_processor(config: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing of a Hugging Face image processor.

    It rescales values v of 0 to 255 to a v + b, then subtracts the mean and divides by the standard deviation. The
    shorter side is resized to the size of the crop, if there is one, and nothing is cut off.

    Args:
        config: content of preprocessor_config.json.

    Raises:
        InputError: the processor reorders colours or has no size.

    >>> config = {"size": {"height": 32, "width": 48}, "resample": 3, "image_mean": [0.5], "image_std": [0.25]}
    >>> read_processor(config)
    Preprocess(size=(32, 48), mean=(0.5,), std=(0.25,), interpolation='bicubic', keep_aspect=True, long_side=None,
               channels=3, multiple=1)
    """
    if config.get("do_flip_channel_order"):
        raise InputError(
            "the model's image processor puts colours in the order blue, green, red, which camplug does not do by "
            "itself; give preprocess= that does."
        )
    cropped = config.get("do_center_crop", True) and config.get("crop_size") is not None
    size = config["crop_size"] if cropped else config.get("size")
    if size is None:
        raise InputError("the model's image processor has no size; give preprocess= that makes its input.")
    is_normal = config.get("do_normalize", config.get("image_mean") is not None)
    mean = tuple(config["image_mean"]) if is_normal else (0.0,)
    std = tuple(config["image_std"]) if is_normal else (1.0,)
    # Preprocess divides by 255 itself
    scale = 255 * float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
    offset = 1.0 if config.get("rescale_offset") else 0.0
    twice = 2 if config.get("include_top") and is_normal else 1  # EfficientNet divides twice
    mean = tuple(m if scale == 1 and not offset else (m + offset) / scale for m in mean)
    std = tuple(s**twice if scale == 1 else s**twice / scale for s in std)
    number = config.get("resample", 2)
    return Preprocess(_read_size(size), mean, std, _FILTERS[number] if number in range(4) else "bilinear")


def _read_size(size: Any) -> tuple[int, int]:
    """Return height and width of a size: a number, a pair, or a dict."""
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return int(size["height"]), int(size["width"])
        side = next((size[name] for name in ("shortest_edge", "longest_edge") if name in size), None)
        if side is None:
            raise InputError(f"the model's image processor has the size {dict(size)}; give preprocess= that resizes.")
        return int(side), int(side)
    if isinstance(size, (tuple, list)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)
