"""Dense inference: a trained convolutional network at a finer output stride, without new weights (a trous)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeAlias

import torch
from torch import Tensor, nn

from camplug.errors import InputError, ModelError
from camplug.plug.dense_layers import Step
from camplug.plug.dense_plan import Call, make_overrides, plan_steps, verify_plan
from camplug.plug.freeze import find_first_weight, force_eager, has_compiled, unwrap
from camplug.plug.layers import find_token_layers, named_layers
from camplug.plug.model_cache import ModelCache
from camplug.plug.overrides import lift_overrides, lock_overrides, override_attributes

Arguments: TypeAlias = "Callable[[Tensor], Call]"
"""Function from images to the positional and keyword arguments of a model's call."""


@contextmanager
def dense(
    model: nn.Module, output_stride: int = 8, *, example: Tensor | None = None, arguments: Arguments | None = None
) -> Iterator[nn.Module]:
    """Run the model at a finer output stride inside the block, with the same weights.

    Strided convolutions and poolings beyond the output stride get stride 1, and the layers after them a matching
    dilation: the a trous algorithm (Holschneider et al., 1990; Chen et al., DeepLab, 2015). The values of the original
    network remain at every (original stride / output_stride)-th position; the values between them are new. Layers that
    average over the whole map (squeeze-and-excitation, GroupNorm) also average the new values. The model is restored
    when the block ends, also after an exception.

    Other threads see the dense model, too, while one thread is in the block. Dense blocks on one model run one after
    the other, and so do the passes by which camplug looks for the layers of a model.

    Args:
        model: convolutional network.
        output_stride: image pixels per position of the last map: 1, 2, 4, 8, 16, ... A network with a stride as fine
            is not changed.
        example: input batch [N,C,H,W] for analysing the model, once per model; default: one black image of 224 pixels.
        arguments: function from one image [1,C,H,W] to the positional and keyword arguments of the model's call; needed
            for models with further inputs.

    Raises:
        InputError: the output stride is no power of two, or the example no batch.
        ModelError: the model is a transformer, loses resolution in anything but convolutions and poolings of torch.nn,
            or does not accept the example.
    """
    check_stride(output_stride)
    if example is not None and not (isinstance(example, Tensor) and example.ndim == 4 and len(example)):
        what = list(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise InputError(f"example={what}; allowed is a batch that the model takes, a tensor [N,C,H,W].")
    root = unwrap(model)
    with lock_overrides(root):
        steps = _find_steps(root, output_stride, example, arguments)
        eager = force_eager() if has_compiled(model.modules()) else nullcontext()
        with lift_overrides(root.modules()), eager, override_attributes(make_overrides(root, steps)):
            yield model


def check_stride(output_stride: int) -> int:
    """Return the output stride, checked.

    Raises:
        InputError: the output stride is no power of two.
    """
    if type(output_stride) is not int or output_stride < 1 or output_stride & (output_stride - 1):
        raise InputError(f"output_stride={output_stride!r}; allowed are the powers of two: 1, 2, 4, 8, 16, 32.")
    return output_stride


_plans: ModelCache[dict[str, Step]] = ModelCache()


def _find_steps(
    root: nn.Module, output_stride: int, example: Tensor | None, arguments: Arguments | None
) -> dict[str, Step]:
    layers = named_layers(root)
    if find_token_layers(root, layers):
        raise ModelError(
            f"this {type(root).__name__} is a transformer: its tokens have one grid; only convolution networks can run "
            "at another output stride."
        )

    def find() -> dict[str, Step]:
        x = _make_example(root) if example is None else example[:1]
        with lift_overrides(layers.values()):
            call = ((x,), {}) if arguments is None else arguments(x)
            steps, calls = plan_steps(root, layers, x, output_stride, call)
            changed = {name: step for name, step in steps.items() if step.is_changed}
            if changed:
                verify_plan(root, layers, call, steps, calls)
        return changed

    return _plans.get(root, layers, output_stride, find)


def _make_example(root: nn.Module) -> Tensor:
    weight = find_first_weight(root)
    conv = next((m for m in root.modules() if isinstance(m, nn.Conv2d)), None)
    x = torch.zeros(1, 3 if conv is None else conv.in_channels, 224, 224)
    return x if weight is None else x.to(weight)
