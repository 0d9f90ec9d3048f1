"""Dense inference: a trained convolution network at a finer output stride, with the weights that it has (a trous)."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from camplug.errors import InputError, ModelError
from camplug.plug.dense_layers import Step
from camplug.plug.dense_plan import Call, plan, settings_of, verify
from camplug.plug.freeze import first_weight, force_eager, is_compiled, unwrap
from camplug.plug.layers import find_token_layers, named_layers
from camplug.plug.model_cache import ModelCache
from camplug.plug.overrides import lift_overrides, override_attributes

Arguments: TypeAlias = "Callable[[Tensor], Call]"
"""From images to the positional and keyword arguments of a model's call."""


@contextmanager
def dense(
    model: nn.Module, output_stride: int = 8, *, example: Tensor | None = None, arguments: Arguments | None = None
) -> Iterator[nn.Module]:
    """The model computes its maps at a finer output stride inside the block, with the same weights.

    From the wanted output stride on, strided convolutions and poolings take every position (stride 1), and the layers
    behind them space their taps by the strides that were left out (dilation): the a trous algorithm (Holschneider et
    al., 1990; Chen et al., DeepLab, 2015). Every value that the network would have computed is still there, at every
    (stride as built / output_stride)-th position; the values between them are new. Only layers that average over the
    whole map (squeeze-and-excitation, GroupNorm) also see the new values. Nothing is trained again, and afterwards the
    model is as before, also if the block raises.

    While one thread is in the block, other threads see the dense model, too; two dense blocks on one model wait for
    each other.

    Args:
        model: a convolution network.
        output_stride: pixels of the image per position of the last map: 1, 2, 4, 8, 16, ... A network that is as fine
            already is left as it is.
        example: a batch that the model takes, [N,C,H,W], to find its layout with; default: one black image of 224
            pixels. Needed once per model.
        arguments: makes the positional and keyword arguments of the model's call from one image [1,C,H,W], where it
            takes more than images.

    Raises:
        InputError: an output stride that is no power of two, or an example that is no batch.
        ModelError: a transformer, a network that loses resolution in something other than convolutions and poolings of
            torch.nn, or an example that the model does not take.
    """
    check_stride(output_stride)
    if example is not None and not (isinstance(example, Tensor) and example.ndim == 4 and len(example)):
        what = list(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise InputError(f"example={what}; allowed is a batch that the model takes, a tensor [N,C,H,W].")
    root = unwrap(model)
    with _lock_of(root):
        steps = _steps(root, output_stride, example, arguments)
        eager = force_eager() if is_compiled(model) else nullcontext()
        with lift_overrides(root.modules()), eager, override_attributes(settings_of(root, steps)):
            yield model


def check_stride(output_stride: int) -> int:
    """Make sure of an output stride.

    Raises:
        InputError: no power of two.
    """
    if type(output_stride) is not int or output_stride < 1 or output_stride & (output_stride - 1):
        raise InputError(f"output_stride={output_stride!r}; allowed are the powers of two: 1, 2, 4, 8, 16, 32.")
    return output_stride


_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()
_plans: ModelCache[dict[str, Step]] = ModelCache()


def _lock_of(root: nn.Module) -> Any:
    with _locks_lock:
        return _locks.setdefault(root, threading.RLock())


# ---- the plan


def _steps(root: nn.Module, output_stride: int, example: Tensor | None, arguments: Arguments | None) -> dict[str, Step]:
    layers = named_layers(root)
    if find_token_layers(root, layers):
        raise ModelError(
            f"this {type(root).__name__} is a transformer: its tokens have one grid; only convolution networks can run "
            "at another output stride."
        )

    def find() -> dict[str, Step]:
        x = _example(root) if example is None else example[:1]
        with lift_overrides(layers.values()):
            call = ((x,), {}) if arguments is None else arguments(x)
            steps, calls = plan(root, layers, x, output_stride, call)
            changed = {name: step for name, step in steps.items() if step.changed}
            if changed:
                verify(root, layers, call, steps, calls)
        return changed

    return _plans.get(root, layers, output_stride, find)


def _example(root: nn.Module) -> Tensor:
    weight = first_weight(root)
    conv = next((m for m in root.modules() if isinstance(m, nn.Conv2d)), None)
    x = torch.zeros(1, 3 if conv is None else conv.in_channels, 224, 224)
    return x if weight is None else x.to(weight)
