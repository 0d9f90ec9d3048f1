"""What every layer of a network does at a finer output stride, found by watching it run, and proved by a second run."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from camplug.errors import ModelError
from camplug.plug.dense_layers import POOLS, Pair, Step, as_pair, attributes, is_stock, make_refusal, stride_of
from camplug.plug.layers import named_layers
from camplug.plug.overrides import Overrides, override_attributes
from camplug.plug.tracer import observe

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a model's call."""

HEADS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)
WINDOWS = ("convolution", "max_pool2d_with_indices", "avg_pool2d", "im2col", "unfold", "slice", "deform_conv2d")


def settings_of(root: nn.Module, steps: dict[str, Step]) -> Overrides:
    """What the layers take on in the dense network."""
    layers = named_layers(root)
    return Overrides(root, {layers[name]: attributes(root, name, layers[name], step) for name, step in steps.items()})


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Listens to a run: the calls of modules that change or may change the size of a map, and of functions that look
    at neighbours, outside of the convolutions and poolings that can be told to look farther."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {id(m): n for n, m in layers.items()}
        self.leaves = {id(m) for m in layers.values() if stride_of(m) or not any(True for _ in m.children())}
        self.open: list[tuple[nn.Module, Pair | None]] = []
        self.calls: list[tuple[str, Pair, Pair]] = []  # the layer, or what function in which layer; size before, after

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Note the size that comes in."""
        self.open.append((module, _size(args[0] if args else None)))

    def after(self, module: nn.Module, output: Any) -> None:
        """Note the size that goes out."""
        came, gone = self.open.pop()[1], _size(output)
        if id(module) in self.leaves and id(module) in self.names and came and gone:
            self.calls.append((self.names[id(module)], came, gone))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        function = func.overloadpacket.__name__
        if function in WINDOWS and not any(stride_of(module) for module, _ in self.open):
            came, gone = _size(args[0]), _size(output[0] if isinstance(output, tuple) else output)
            taps = args[1].shape[2:] if function == "convolution" else None
            if came and not (function == "slice" and came == gone) and (taps is None or max(taps) > 1 or came != gone):
                where = self.names.get(id(self.open[-1][0])) if self.open else ""
                function = function.removesuffix("_with_indices")
                self.calls.append((f"{function} in the forward of {where or 'the model'}", came, gone or came))
        return output


def _size(tensor: Any) -> Pair | None:
    if not isinstance(tensor, Tensor) or tensor.ndim != 4:
        return None
    return tensor.shape[2], tensor.shape[3]


def plan(
    root: nn.Module, layers: dict[str, nn.Module], x: Tensor, output_stride: int, call: Call
) -> tuple[dict[str, Step], list[tuple[str, Pair, Pair]]]:
    """What every convolution and pooling does at the wanted output stride, and the calls of one run as built."""
    seen = _Sizes(layers)
    try:
        with seen:
            observe(root, layers, call[0], seen, kwargs=call[1])
    except Exception as error:
        raise _unusable(root, x, error) from error
    strides: dict[Pair, tuple[Pair, Pair]] = {(x.shape[2], x.shape[3]): ((1, 1), (1, 1))}  # size: (as built, dense)
    steps: dict[str, Step] = {}

    def note(size: Pair, built: Pair, now: Pair) -> None:
        known = strides.setdefault(size, (built, now))
        if known != (built, now) and max(*known[0], *built) > output_stride:
            raise ModelError(
                f"on an example of {x.shape[2]}x{x.shape[3]} pixels, this {type(root).__name__} has maps of several "
                f"strides that are all {size[0]}x{size[1]}; give example= with a larger image."
            )

    for name, came, gone in seen.calls:
        module = layers.get(name)  # None: a function
        own = stride_of(module)
        if came not in strides:
            if own is None:
                continue
            built = (max(1, round(x.shape[2] / came[0])), max(1, round(x.shape[3] / came[1])))
            if came != (1, 1) and max(built) > output_stride:
                raise make_refusal(root, f"{name!r} reads a map that something other than a module made smaller")
            strides[came] = built, built
        built, now = strides[came]
        if own is None:
            if gone not in strides and gone != (1, 1) and not isinstance(module, HEADS):
                what = f"{name!r} ({type(module).__name__})" if module else name
                shrink = [max(1, round(c / g)) for c, g in zip(came, gone, strict=True)]
                grow = [max(1, round(g / c)) for c, g in zip(came, gone, strict=True)]
                out = (max(1, built[0] * shrink[0] // grow[0]), max(1, built[1] * shrink[1] // grow[1]))
                if max(shrink) > 1 and max(out) > output_stride:
                    raise make_refusal(root, f"{what} makes the map smaller")
                if max(grow) > 1 and built != now:
                    raise make_refusal(root, f"{what} makes the map larger")
                strides[gone] = out, now if out == built else out
            continue
        pairs = [_dense_stride(b, n, s, output_stride) for b, n, s in zip(built, now, own, strict=True)]
        # a window of 2 or 3 at the end makes smaller, as ever; a larger one onto one position is a head
        whole = isinstance(module, POOLS) and gone == (1, 1) and max(as_pair(module.kernel_size)) > 3
        step = Step(own, own if whole else (pairs[0], pairs[1]), (built[0] // now[0], built[1] // now[1]), whole)
        if steps.setdefault(name, step) != step:
            raise make_refusal(root, f"{name!r} runs on maps of several resolutions")
        if not whole:
            note(gone, (built[0] * own[0], built[1] * own[1]), (now[0] * pairs[0], now[1] * pairs[1]))
    return steps, seen.calls


def _dense_stride(built: int, now: int, own: int, wanted: int) -> int:
    """The stride of a layer that reads a map at stride `built` as built and `now` in the dense network."""
    if now * own <= wanted and built == now:
        return own
    return wanted // now if now < wanted and wanted % now == 0 and own % (wanted // now) == 0 else 1


def verify(
    root: nn.Module,
    layers: dict[str, nn.Module],
    call: Call,
    steps: dict[str, Step],
    calls: list[tuple[str, Pair, Pair]],
) -> None:
    """Run the dense network once and compare its calls with those as built, and the sizes of its maps with the plan."""
    seen, settings = _Sizes(layers), settings_of(root, {name: step for name, step in steps.items() if step.changed})
    with override_attributes(settings):
        try:
            with seen:
                observe(root, layers, call[0], seen, kwargs=call[1], as_they_are=True)
        except Exception as error:
            raise make_refusal(root, f"it fails so ({type(error).__name__}: {_first_line(error)})") from error
    if [name for name, _, _ in seen.calls] != [name for name, _, _ in calls]:
        raise make_refusal(root, "it takes another path so")
    for (name, came, gone), (_, was_in, was_out) in zip(seen.calls, calls, strict=True):
        step = steps.get(name)
        if step is None and name not in layers and came != was_in:
            raise make_refusal(root, f"{name} reads neighbours at a distance that cannot be set")
        if step is None or step.whole:
            continue
        for got, was, own, now, rate in zip(gone, was_out, step.stride, step.dense_stride, step.rate, strict=True):
            finer = rate * own // now
            if not (was - 1) * finer + 1 <= got <= was * finer:
                raise make_refusal(
                    root, f"{name!r} ({type(layers[name]).__name__}) does not follow its stride or dilation"
                )
    _verify_starts(root, layers, steps, calls, settings)


def _verify_starts(
    root: nn.Module,
    layers: dict[str, nn.Module],
    steps: dict[str, Step],
    calls: list[tuple[str, Pair, Pair]],
    settings: Overrides,
) -> None:
    """Layers that make one map smaller must agree where they start; those with a `forward` of their own are tried."""
    starts: dict[tuple[Pair, Pair], Pair] = {}
    for name, came, _ in calls:
        step, module = steps.get(name), layers.get(name)
        if step is None or not step.changed or step.whole:
            continue
        start = (0, 0)
        if isinstance(module, nn.Conv2d) and not is_stock(module):
            tried = _start(module, came, step, settings)
            if tried is None:
                raise make_refusal(root, f"{name!r} ({type(module).__name__}) does not follow its stride or dilation")
            start = tried
        if step.stride != step.dense_stride and starts.setdefault((came, step.stride), start) != start:
            raise make_refusal(root, f"{name!r} ({type(module).__name__}) starts elsewhere than a layer beside it")


def _start(module: nn.Conv2d, came: Pair, step: Step, settings: Overrides) -> Pair | None:
    """Which positions of the dense map are those as built: from the first on, or those that end with the last."""
    size = [n if n < 16 else n % s + 16 * s for n, s in zip(came, step.stride, strict=True)]  # "same" padding differs
    x = torch.randn(1, module.in_channels, *size, generator=torch.Generator().manual_seed(0)).to(module.weight)
    finer = [r * s // d for r, s, d in zip(step.rate, step.stride, step.dense_stride, strict=True)]
    try:
        with torch.no_grad():
            want = module.forward(x)
            with override_attributes(settings):
                got = module.forward(x.repeat_interleave(step.rate[0], 2).repeat_interleave(step.rate[1], 3))
    except Exception:  # its own forward may want anything
        return None
    for top in sorted({0, finer[0] - 1}):
        for left in sorted({0, finer[1] - 1}):
            same = got[:, :, top :: finer[0], left :: finer[1]]
            if same.shape == want.shape and (same - want).abs().max() <= 0.02 * want.abs().max():
                return int(top > 0), int(left > 0)
    return None


def _unusable(root: nn.Module, x: Tensor, error: Exception) -> ModelError:
    return ModelError(
        f"this {type(root).__name__} does not take the example {list(x.shape)} ({type(error).__name__}: "
        f"{_first_line(error)}); give example= with a batch that it takes."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
