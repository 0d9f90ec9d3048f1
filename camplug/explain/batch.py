"""Steps shared by all methods: checks of the batch, calls of the model, final size and scale of the maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from camplug.errors import InputError, LayerError, ModelError, TargetError
from camplug.explain.fuse import Fusion, Normalize, normalize_map, resize_and_sum
from camplug.explain.inputs import Batch, Inputs
from camplug.plug import (
    Layer,
    MapSize,
    Size,
    Tape,
    Targets,
    copy_inputs,
    count_spatial_dims,
    find_first_weight,
    get_logits,
    make_index,
    named_layers,
    observe,
    unwrap,
)
from camplug.plug.data_flow import list_floats
from camplug.plug.hooks import NullListener
from camplug.plug.model_cache import ModelCache
from camplug.plug.tensors import snapshot

_BATCHES = {1: "[N,C,L]", 2: "[N,3,H,W]", 3: "[N,C,D,H,W]"}
_NOUNS = {1: "signal", 2: "image", 3: "volume"}


def choose_calls(tape: Tape, call: int | None = None) -> list[tuple[Layer, Tensor]]:
    """Return the captured calls of the wanted layers with their activations.

    Args:
        tape: tape after the forward pass.
        call: index of the call of each layer, from 0 (negative: from the last one); None: those that "last" or "stages"
            means, of other layers all calls.

    Raises:
        LayerError: no wanted layer ran, or none has this call.
    """
    captures = tape.captures
    if not captures:
        raise LayerError("none of the wanted layers ran in the forward pass; name layers that the model calls.")
    if call is None:
        meant = tape.chosen_calls
        return [(la, a) for la, a in captures if la.call in meant.get(la.name, (la.call,))] or captures
    counts = Counter(layer.name for layer, _ in captures)
    chosen = [(la, a) for la, a in captures if la.call == (call if call >= 0 else counts[la.name] + call)]
    if not chosen:
        raise LayerError(
            f"call={call}: the wanted layers ran at most {max(counts.values())} times in the forward pass; calls are "
            "counted from 0."
        )
    return chosen


def check_batch(model: nn.Module, x: Tensor, inputs: Any = None, *, images_only: bool = True) -> Batch:
    """Return a batch for the model: checked, detached, in the model's dtype.

    Args:
        model: model to be called.
        x: images [N,C,H,W]; signals [N,C,L] or volumes [N,C,D,H,W] of a model with such convolutions.
        inputs: further inputs of the model; see `camplug.explain.inputs.Inputs.of`.
        images_only: refuse signals and volumes.

    Raises:
        InputError: x is no floating-point tensor [N,C,H,W] with at least one image on the model's device, or inputs
            belong to another number of images.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"maps() takes a tensor [N,3,H,W]; got {type(x).__name__}. explain() takes photographs.")
    dims = count_spatial_dims(unwrap(model))
    if x.ndim != dims + 2 or 0 in x.shape:
        raise InputError(
            f"maps() takes a batch {_BATCHES[dims]} of at least one {_NOUNS[dims]}; got {list(x.shape)}"
            + (f", use x[None] for one {_NOUNS[dims]}." if x.ndim == dims + 1 else ".")
        )
    if dims != 2 and images_only:
        raise InputError(
            f"this model takes {_NOUNS[dims]}s {_BATCHES[dims]}, which only methods that read layers explain (GradCAM, "
            "LayerCAM, FullyCAM, ...); wrappers, and methods that change the image, need images [N,3,H,W]."
        )
    if is_packed(model):
        raise InputError(
            f"this {type(unwrap(model)).__name__} reads packed sequences of patches instead of images, which camplug "
            "does not lay out; take a model of the same family with images of one size, such as SigLIP 2 at 224 pixels."
        )
    if inputs is None and has_two_towers(unwrap(model)):
        raise InputError(
            f"this {type(unwrap(model)).__name__} compares images with texts, and got images alone; give texts as "
            'classes with camplug.Prompts(model, ["a dog", "grass"]), or its further inputs with inputs=.'
        )
    if not x.is_floating_point():
        raise InputError(f"maps() takes normalised floating-point images; got {x.dtype}. explain() takes raw pixels.")
    weight = find_first_weight(model)
    if weight is not None and weight.device != x.device:
        raise InputError(f"the images are on {x.device} and the model is on {weight.device}; move one of them.")
    x = snapshot(x.detach())  # safe from in-place operations of the model
    if weight is not None and weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    if inputs is None:
        return choose_memory_format(unwrap(model), Batch(x))
    others = Inputs.of(inputs).for_images(x.shape[0])
    others.check_aligned(tuple(x.shape[2:]))
    return choose_memory_format(unwrap(model), Batch(x, others))


def is_packed(model: nn.Module) -> bool:
    """Return whether a part of the model reads packed sequences of patches, as SigLIP 2 of Hugging Face (NaFlex)."""
    kinds = (getattr(getattr(module, "config", None), "model_type", "") for module in model.modules())
    return any(isinstance(kind, str) and kind.startswith("siglip2") for kind in kinds)


def has_two_towers(model: nn.Module) -> bool:
    """Return whether a model is one of images and texts of Hugging Face, such as CLIPModel."""
    return hasattr(model, "config") and all(isinstance(getattr(model, n, None), nn.Module) for n in _TOWERS)


_TOWERS = ("vision_model", "text_model")


def choose_memory_format(model: nn.Module, batch: Batch) -> Batch:
    """Return the batch in channels_last if that is faster on the CPU and gives the same outputs.

    It is up to a quarter faster if the batch is large compared to the convolutions' weights, which are reordered in
    every pass; the factor is the break-even point of seven architectures with 1 to 8 images.
    """
    x = batch.x
    if x.device.type != "cpu" or x.ndim != 4:
        return batch
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    if weights == 0 or 300 * x.shape[0] * x.shape[2] * x.shape[3] < weights:
        return batch
    layers = named_layers(model)
    checks = _checks.get(model, layers, x.dtype, dict)
    area = x.shape[2] * x.shape[3]
    if not any((same and known >= area) or (not same and known == area) for known, same in checks.items()):
        checks[area] = all(checks.values()) and _supports_channels_last(model, layers, batch)
    return batch.with_images(x.contiguous(memory_format=torch.channels_last)) if all(checks.values()) else batch


_checks: ModelCache[dict[int, bool]] = ModelCache()  # {pixels of the image: outputs are equal}


def _supports_channels_last(model: nn.Module, layers: dict[str, nn.Module], batch: Batch) -> bool:
    """Return whether the model gives the same outputs for two of the images in channels_last."""
    few = batch if len(batch) <= 2 else batch.take([0, 1])
    formats = (torch.contiguous_format, torch.channels_last)
    try:
        plain, last = (
            list_floats(observe_call(model, layers, few.with_images(few.x.contiguous(memory_format=f))))
            for f in formats
        )
    except Exception:  # models may fail on another layout, or on fewer images
        return False
    allowed = 100 * torch.finfo(few.x.dtype).eps ** 0.75  # order of summation
    return len(plain) == len(last) > 0 and all(
        a.shape == b.shape and bool(((a - b).abs() <= allowed * a.abs().max()).all())
        for a, b in zip(plain, last, strict=True)
    )


def call_model(model: nn.Module, batch: Batch) -> Any:
    """Return the model's output for a batch.

    Raises:
        ModelError: the model, or a hook on it, calls `.numpy()` on a tensor with a graph.
    """
    args, kwargs = batch.make_arguments()
    try:
        return unwrap(model)(*args, **kwargs)
    except RuntimeError as error:
        if "numpy() on Tensor that requires grad" not in str(error):
            raise
        raise ModelError(
            "the model, or a forward hook on it, calls .numpy() on a tensor that has a gradient here; write "
            ".detach().numpy() there, remove the hook, or take a method that needs no gradient."
        ) from error


def observe_call(model: nn.Module, layers: dict[str, nn.Module], batch: Batch) -> Any:
    """Return the model's output for a batch, without side effects on model and batch."""
    args, kwargs = copy_inputs(batch.make_arguments())
    return observe(model, layers, args, NullListener(), kwargs=kwargs)


def check_size(batch: Batch, size: MapSize | None) -> list[Size]:
    """Return the size of each image's maps, by default that of the input, also for signals and volumes.

    Args:
        batch: images.
        size: one size, or a list with one per image.

    Raises:
        InputError: a size does not have one positive number per spatial dimension, or there is not one per image.
    """
    own = batch.spatial_size
    if size is None:
        return [own] * len(batch)
    each = isinstance(size, list) and bool(size) and isinstance(size[0], (tuple, list))
    sizes: list[Any] = list(size) if each else [size] * len(batch)
    for one in sizes:
        if (
            not isinstance(one, (tuple, list))
            or len(one) != len(own)
            or not all(isinstance(side, Integral) and int(side) >= 1 for side in one)
        ):
            wanted = {1: "(length,)", 2: "(height, width)", 3: "(depth, height, width)"}[len(own)]
            raise InputError(f"size={size!r}; give {wanted}, {'both ' * (len(own) == 2)}at least 1.")
    if len(sizes) != len(batch):
        raise InputError(f"{len(sizes)} sizes for {len(batch)} images; give one size, or one per image.")
    return [tuple(int(side) for side in one) for one in sizes]


def choose_size(sizes: list[Size]) -> MapSize:
    """Return the sizes of images' maps as one size if they are equal, which is what every method takes."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


@torch.no_grad()
def finish_maps(
    rounds: list[Fusion], targets: Targets, x: Tensor, sizes: Sequence[Size], normalize: Normalize
) -> list[Tensor]:
    """Return the maps at their final size and scale, [K_i,h,w] per image, from one fusion [N,h,w] per round.

    Args:
        rounds: fusions.
        targets: classes or score of each image.
        x: images.
        sizes: size of each image's maps.
        normalize: normalisation of the maps.

    Raises:
        TargetError: a value is NaN or infinite.
    """
    counts = [1 if targets.score else len(classes) for classes in targets.classes]
    picked = [(i, r) for i, count in enumerate(counts) for r in range(count)]
    if not picked:
        return [torch.zeros((0, *size), device=x.device) for size in sizes]
    n = len(counts)
    shapes = {shape: one for fusion in rounds for shape, one in fusion.sums.items()}
    sums = [
        torch.cat([fusion.sums.get(shape, torch.zeros_like(one)) for fusion in rounds]) for shape, one in shapes.items()
    ]
    if picked != [(i, 0) for i in range(len(rounds) * n)]:
        index = make_index(x.device, [r * n + i for i, r in picked])
        sums = [m.index_select(0, index) for m in sums]
    if not bool(torch.stack([torch.isfinite(m).all() for m in sums]).all()):
        raise TargetError(
            "the map holds NaN or infinite values, though the score is finite: some layer overflowed; run the model in "
            "a wider number format (float32 or bfloat16)."
        )
    if len(set(sizes)) == 1:
        return list(torch.split(normalize_map(resize_and_sum(sums, sizes[0]), normalize, len(sizes[0])), counts))
    parts = zip(*(torch.split(m, counts) for m in sums), strict=True)
    return [
        normalize_map(resize_and_sum(list(own), size), normalize, len(size))
        for own, size in zip(parts, sizes, strict=True)
    ]


def find_class_logits(output: Any, n: int) -> Tensor | None:
    """Return the detached logits [N,C] of n images; None if the output has none."""
    try:
        return get_logits(output, n).detach()
    except ModelError:
        return None


@torch.no_grad()
def compute_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Compute the logits [N,C] of a batch, without side effects on the model."""
    with Tape(model, [""], forward_only=True, image=batch.where):
        return get_logits(call_model(model, batch), len(batch))
