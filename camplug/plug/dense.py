"""Dense inference: a trained convolution network at a finer output stride, with the weights that it has (a trous)."""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camplug.errors import InputError, ModelError
from camplug.plug.guard import force_eager, is_compiled, unwrap
from camplug.plug.layers import named_layers, token_layers
from camplug.plug.outline import observe
from camplug.plug.remember import Remembered
from camplug.plug.settings import Settings, as_built, holding

Pair: TypeAlias = tuple[int, int]
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
HEADS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)


@dataclass(frozen=True)
class Step:
    """How a convolution or pooling runs in a dense network.

    Attributes:
        stride: its own stride as built.
        dense_stride: its stride now.
        rate: how much finer than as built the map is that it reads; its taps lie this much farther apart.
        whole: as built it pools everything onto a single position.
    """

    stride: Pair
    dense_stride: Pair
    rate: Pair
    whole: bool

    @property
    def changed(self) -> bool:
        """Whether anything is different from how the layer was built."""
        return self.stride != self.dense_stride or self.rate != (1, 1)


@contextmanager
def dense(model: nn.Module, output_stride: int = 8, *, example: Tensor | None = None) -> Iterator[nn.Module]:
    """The model computes its maps at a finer output stride inside the block, with the same weights.

    From the wanted output stride on, strided convolutions and poolings take every position (stride 1), and the layers
    behind them space their taps by the strides that were left out (dilation): the a trous algorithm (Holschneider et
    al., 1990; Chen et al., DeepLab, 2015). Every value that the network would have computed is still there, at every
    (stride as built / output_stride)-th position; the values between them are new. Nothing is trained again, and
    afterwards the model is as before, also if the block raises.

    While one thread is in the block, other threads see the dense model, too; two dense blocks on one model wait for
    each other.

    Args:
        model: a convolution network.
        output_stride: pixels of the image per position of the last map: 1, 2, 4, 8, 16, ... A network that is as fine
            already is left as it is.
        example: a batch that the model takes, [N,C,H,W], to find its layout with; default: one black image of 224
            pixels. Needed once per model.

    Raises:
        InputError: an output stride that is no power of two.
        ModelError: a transformer, or a network that loses resolution in something other than convolutions and poolings
            of torch.nn.
    """
    checked_stride(output_stride)
    root = unwrap(model)
    with _lock_of(root):
        steps = _steps(root, output_stride, example)
        eager = force_eager() if is_compiled(root) else nullcontext()
        with as_built(root.modules()), eager, holding(_settings(root, steps)):
            yield model


def checked_stride(output_stride: int) -> int:
    """Make sure of an output stride.

    Raises:
        InputError: no power of two.
    """
    if type(output_stride) is not int or output_stride < 1 or output_stride & (output_stride - 1):
        raise InputError(f"output_stride={output_stride!r}; allowed are the powers of two: 1, 2, 4, 8, 16, 32.")
    return output_stride


_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()
_plans: Remembered[dict[str, Step]] = Remembered()


def _lock_of(root: nn.Module) -> Any:
    with _locks_lock:
        return _locks.setdefault(root, threading.RLock())


# ---- the plan


def _steps(root: nn.Module, output_stride: int, example: Tensor | None) -> dict[str, Step]:
    layers = named_layers(root)
    if token_layers(root, layers):
        raise ModelError(
            f"this {type(root).__name__} is a transformer: its tokens have one grid; only convolution networks can run "
            "at another output stride."
        )

    def find() -> dict[str, Step]:
        x = _example(root) if example is None else example[:1]
        with as_built(layers.values()):
            steps, sizes = _plan(root, layers, x, output_stride)
            _verify(root, layers, x, steps, sizes)
        return steps

    return _plans.get(root, layers, output_stride, find)


def _example(root: nn.Module) -> Tensor:
    weight = next((p for p in root.parameters() if p.is_floating_point()), torch.zeros(()))
    conv = next((m for m in root.modules() if isinstance(m, nn.Conv2d)), None)
    return torch.zeros(1, 3 if conv is None else conv.in_channels, 224, 224, device=weight.device, dtype=weight.dtype)


class _Sizes:
    """Listens to a run: the calls of convolutions and poolings, and of whatever else changes the size of a map."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.names = {id(m): n for n, m in layers.items()}
        self.leaves = {id(m) for m in layers.values() if not any(True for _ in m.children())}
        self.open: list[Pair | None] = []
        self.calls: list[tuple[str, Pair, Pair]] = []

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Note the size that comes in."""
        self.open.append(_size(args[0] if args else None))

    def after(self, module: nn.Module, output: Any) -> None:
        """Note the size that goes out."""
        came, gone = self.open.pop(), _size(output)
        if id(module) in self.leaves and id(module) in self.names and came and gone:
            self.calls.append((self.names[id(module)], came, gone))


def _size(tensor: Any) -> Pair | None:
    if not isinstance(tensor, Tensor) or tensor.ndim != 4:
        return None
    return tensor.shape[2], tensor.shape[3]


def _plan(
    root: nn.Module, layers: dict[str, nn.Module], x: Tensor, output_stride: int
) -> tuple[dict[str, Step], dict[str, Pair]]:
    """What every convolution and pooling does at the wanted output stride, from one run of the model as built."""
    seen = _Sizes(layers)
    try:
        observe(root, layers, (x,), seen)
    except Exception as error:
        raise _unusable(root, x, error) from error
    strides: dict[Pair, tuple[Pair, Pair]] = {(x.shape[2], x.shape[3]): ((1, 1), (1, 1))}  # size: (as built, dense)
    steps: dict[str, Step] = {}
    sizes: dict[str, Pair] = {}
    for name, came, gone in seen.calls:
        module = layers[name]
        own = _stride(module)
        if came not in strides:
            if own is None:
                continue
            built = (max(1, round(x.shape[2] / came[0])), max(1, round(x.shape[3] / came[1])))
            if came != (1, 1) and max(built) > output_stride:
                raise _refused(root, f"{name!r} reads a map that something other than a module made smaller")
            strides[came] = built, built
        built, now = strides[came]
        if own is None:
            if gone not in strides and not isinstance(module, HEADS):
                shrink = tuple(round(c / g) for c, g in zip(came, gone, strict=True))
                out = (built[0] * shrink[0], built[1] * shrink[1])
                if max(shrink) > 1 and max(out) > output_stride and gone != (1, 1):
                    raise _refused(root, f"{name!r} ({type(module).__name__}) makes the map smaller")
                strides[gone] = out, (now[0] * shrink[0], now[1] * shrink[1])
            continue
        pairs = [_dense_stride(b, n, s, output_stride) for b, n, s in zip(built, now, own, strict=True)]
        whole = isinstance(module, POOLS) and gone == (1, 1)
        step = Step(own, (pairs[0], pairs[1]), (built[0] // now[0], built[1] // now[1]), whole)
        if steps.setdefault(name, step) != step:
            raise _refused(root, f"{name!r} runs on maps of several resolutions")
        sizes[name] = gone
        if not whole:
            strides.setdefault(gone, ((built[0] * own[0], built[1] * own[1]), (now[0] * pairs[0], now[1] * pairs[1])))
    return {name: step for name, step in steps.items() if step.changed}, sizes


def _dense_stride(built: int, now: int, own: int, wanted: int) -> int:
    """The stride of a layer that reads a map at stride `built` as built and `now` in the dense network."""
    if now * own <= wanted and built == now:
        return own
    return wanted // now if now < wanted and wanted % now == 0 and own % (wanted // now) == 0 else 1


def _stride(module: nn.Module) -> Pair | None:
    return _pair(module.stride) if isinstance(module, (nn.Conv2d, *POOLS)) else None


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _verify(
    root: nn.Module, layers: dict[str, nn.Module], x: Tensor, steps: dict[str, Step], sizes: dict[str, Pair]
) -> None:
    """Run the dense network once and compare the sizes of its maps with what they should be."""
    seen = _Sizes(layers)
    with holding(_settings(root, steps)):
        try:
            observe(root, layers, (x,), seen, as_they_are=True)
        except Exception as error:
            raise _refused(root, f"it fails so ({type(error).__name__}: {_first_line(error)})") from error
    for name, _, gone in seen.calls:
        step = steps.get(name)
        if step is None or step.whole:
            continue
        for got, was, own, now, rate in zip(gone, sizes[name], step.stride, step.dense_stride, step.rate, strict=True):
            finer = rate * own // now
            if not (was - 1) * finer + 1 <= got <= was * finer + finer:
                raise _refused(root, f"{name!r} ({type(layers[name]).__name__}) does not follow its stride or dilation")


def _refused(root: nn.Module, why: str) -> ModelError:
    return ModelError(
        f"this {type(root).__name__} cannot run at that output stride: {why}; use a larger output_stride, or the model "
        "as it is."
    )


def _unusable(root: nn.Module, x: Tensor, error: Exception) -> ModelError:
    return ModelError(
        f"this {type(root).__name__} does not take the example {list(x.shape)} ({type(error).__name__}: "
        f"{_first_line(error)}); give example= with a batch that it takes."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


# ---- the settings


def _settings(root: nn.Module, steps: dict[str, Step]) -> Settings:
    layers = named_layers(root)
    return Settings(root, {layers[name]: _attributes(root, name, layers[name], step) for name, step in steps.items()})


def _attributes(root: nn.Module, name: str, module: nn.Module, step: Step) -> dict[str, Any]:
    """The attributes that a layer takes on in the dense network."""
    if isinstance(module, nn.Conv2d):
        rate, dilation = step.rate, module.dilation
        found: dict[str, Any] = {
            "stride": step.dense_stride,
            "dilation": (dilation[0] * rate[0], dilation[1] * rate[1]),
        }
        if not isinstance(module.padding, str):
            found["padding"] = (module.padding[0] * rate[0], module.padding[1] * rate[1])
            found["_reversed_padding_repeated_twice"] = [
                p * r
                for p, r in zip(module._reversed_padding_repeated_twice, [rate[1]] * 2 + [rate[0]] * 2, strict=True)
            ]
            if type(module).forward is nn.Conv2d.forward and step.dense_stride == (1, 1) != step.stride:
                found["forward"] = types.MethodType(_Conv(step), module)
        return found
    if type(module).forward not in (nn.MaxPool2d.forward, nn.AvgPool2d.forward):
        raise _refused(root, f"{name!r} is a {type(module).__name__}, a pooling of its own kind")
    if step.whole:
        pool = F.adaptive_max_pool2d if isinstance(module, nn.MaxPool2d) else F.adaptive_avg_pool2d
        return {"forward": types.MethodType(_Whole(pool), module)}
    return {"forward": types.MethodType((_Max if isinstance(module, nn.MaxPool2d) else _Average)(step), module)}


class _Whole:
    """A pooling onto a single position covers the whole of the larger map, too."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        return self.pool(x, 1)  # type: ignore[no-any-return]


class _Windowed:
    """Sizes the padding at the right and lower border so that branches of one size as built stay of one size."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def missing(self, x: Tensor, kernel: Pair, padding: Pair, dilation: Pair, ceil_mode: bool = False) -> list[int]:
        """What to add at the (left, right, top, bottom), for `F.pad`."""
        add = []
        for axis in (1, 0):
            n, k, p, d = x.shape[2 + axis], kernel[axis], padding[axis], dilation[axis]
            own, now, rate = self.step.stride[axis], self.step.dense_stride[axis], self.step.rate[axis]
            natural = n + 2 * p * rate - d * rate * (k - 1)
            if own == 1 or now != 1:
                add += [0, 0]
                continue
            as_built = -(-n // rate)
            span = as_built + 2 * p - d * (k - 1) - 1
            count = (-(-span // own) if ceil_mode else span // own) + 1
            if ceil_mode and (count - 1) * own >= as_built + p:  # torch drops a window that starts behind the border
                count -= 1
            add += [0, max(0, min(count * own * rate, n) - natural)]
        return add


class _Conv(_Windowed):
    def __call__(self, module: nn.Conv2d, x: Tensor) -> Tensor:
        step = self.step
        rate, dilation = step.rate, module.dilation
        padding = _pair(module.padding)
        add = self.missing(
            x,
            _pair(module.kernel_size),
            (padding[0] // rate[0], padding[1] // rate[1]),
            (dilation[0] // rate[0], dilation[1] // rate[1]),
        )
        out: Tensor = module._conv_forward(F.pad(x, add) if any(add) else x, module.weight, module.bias)
        return out


class _Max(_Windowed):
    def __call__(self, module: nn.MaxPool2d, x: Tensor) -> Tensor:
        kernel, padding, dilation = _pair(module.kernel_size), _pair(module.padding), _pair(module.dilation)
        rate = self.step.rate
        add = self.missing(x, kernel, padding, dilation, module.ceil_mode)
        p = (padding[0] * rate[0], padding[1] * rate[1])
        around = [p[1] + add[0], p[1] + add[1], p[0] + add[2], p[0] + add[3]]  # torch bounds its own by half a kernel
        x = F.pad(x, around, value=float("-inf")) if any(around) else x
        spread = (dilation[0] * rate[0], dilation[1] * rate[1])
        return F.max_pool2d(x, kernel, self.step.dense_stride, 0, spread)


class _Average(_Windowed):
    def __call__(self, module: nn.AvgPool2d, x: Tensor) -> Tensor:
        kernel, padding, rate = _pair(module.kernel_size), _pair(module.padding), self.step.rate
        add = self.missing(x, kernel, padding, (1, 1), module.ceil_mode)
        p = (padding[0] * rate[0], padding[1] * rate[1])
        area = kernel[0] * kernel[1]

        def windows(t: Tensor) -> Tensor:
            ones = t.new_ones(t.shape[1], 1, *kernel)
            return F.conv2d(t, ones, None, self.step.dense_stride, 0, rate, t.shape[1])

        around = [p[1], p[1], p[0], p[0]]
        total = windows(F.pad(F.pad(x, around), add))
        if module.divisor_override:
            return total / module.divisor_override
        known = x.new_ones(1, 1, x.shape[2], x.shape[3])
        known = F.pad(known, around, value=1.0 if module.count_include_pad else 0.0)
        count = windows(F.pad(known, add))  # what lies behind the border was never counted
        return total / count.clamp_min(1) if any(add) or not module.count_include_pad else total / area
