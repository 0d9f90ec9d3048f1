"""Plan the layers of a network at a finer output stride from one forward pass, and verify the plan by a second."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from camplug.errors import ModelError
from camplug.plug.dense_layers import POOLS, Pair, Step, as_pair, get_stride, is_stock, make_attributes, make_refusal
from camplug.plug.layers import named_layers
from camplug.plug.overrides import Overrides, override_attributes
from camplug.plug.tracer import observe

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a model's call."""

HEADS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)
WINDOWS = ("convolution", "max_pool2d_with_indices", "avg_pool2d", "im2col", "unfold", "slice", "deform_conv2d")


def make_overrides(root: nn.Module, steps: dict[str, Step]) -> Overrides:
    """Return the attribute overrides of the layers in the dense network."""
    layers = named_layers(root)
    return Overrides(
        root, {layers[name]: make_attributes(root, name, layers[name], step) for name, step in steps.items()}
    )


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Listener that records the map sizes before and after modules and functions that may change them.

    Functions are recorded if they have a spatial window and run outside of convolution and pooling modules.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {id(m): n for n, m in layers.items()}
        self.leaves = {id(m) for m in layers.values() if get_stride(m) or not any(True for _ in m.children())}
        self.open: list[tuple[nn.Module, Pair | None]] = []
        self.calls: list[tuple[str, Pair, Pair]] = []  # layer or function; size before, after

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Record the size of the input."""
        self.open.append((module, _get_map_size(args[0] if args else None)))

    def after(self, module: nn.Module, output: Any) -> None:
        """Record the size of the output."""
        came, gone = self.open.pop()[1], _get_map_size(output)
        if id(module) in self.leaves and id(module) in self.names and came and gone:
            self.calls.append((self.names[id(module)], came, gone))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        function = func.overloadpacket.__name__
        if function in WINDOWS and not any(get_stride(module) for module, _ in self.open):
            came, gone = _get_map_size(args[0]), _get_map_size(output[0] if isinstance(output, tuple) else output)
            taps = args[1].shape[2:] if function == "convolution" else None
            if came and not (function == "slice" and came == gone) and (taps is None or max(taps) > 1 or came != gone):
                where = self.names.get(id(self.open[-1][0])) if self.open else ""
                function = function.removesuffix("_with_indices")
                self.calls.append((f"{function} in the forward of {where or 'the model'}", came, gone or came))
        return output


def _get_map_size(tensor: Any) -> Pair | None:
    if not isinstance(tensor, Tensor) or tensor.ndim != 4:
        return None
    return tensor.shape[2], tensor.shape[3]


def plan_steps(
    root: nn.Module, layers: dict[str, nn.Module], x: Tensor, output_stride: int, call: Call
) -> tuple[dict[str, Step], list[tuple[str, Pair, Pair]]]:
    """Return the step of every convolution and pooling at an output stride, and the calls of the original network."""
    sizes = _Sizes(layers)
    try:
        with sizes:
            observe(root, layers, call[0], sizes, kwargs=call[1])
    except Exception as error:
        raise _make_example_error(root, x, error) from error
    strides: dict[Pair, tuple[Pair, Pair]] = {(x.shape[2], x.shape[3]): ((1, 1), (1, 1))}  # size: (original, dense)
    steps: dict[str, Step] = {}

    def record(size: Pair, built: Pair, now: Pair) -> None:
        known = strides.setdefault(size, (built, now))
        if known != (built, now) and max(*known[0], *built) > output_stride:
            raise ModelError(
                f"on an example of {x.shape[2]}x{x.shape[3]} pixels, this {type(root).__name__} has maps of several "
                f"strides that are all {size[0]}x{size[1]}; give example= with a larger image."
            )

    for name, came, gone in sizes.calls:
        module = layers.get(name)  # None: a function
        own = get_stride(module)
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
        pairs = [_choose_stride(b, n, s, output_stride) for b, n, s in zip(built, now, own, strict=True)]
        # windows up to 3 downsample; a larger one onto one position is the head
        whole = isinstance(module, POOLS) and gone == (1, 1) and max(as_pair(module.kernel_size)) > 3
        step = Step(own, own if whole else (pairs[0], pairs[1]), (built[0] // now[0], built[1] // now[1]), whole)
        if steps.setdefault(name, step) != step:
            raise make_refusal(root, f"{name!r} runs on maps of several resolutions")
        if not whole:
            record(gone, (built[0] * own[0], built[1] * own[1]), (now[0] * pairs[0], now[1] * pairs[1]))
    return steps, sizes.calls


def _choose_stride(built: int, now: int, own: int, wanted: int) -> int:
    """Return the dense stride of a layer whose input has stride `built` in the original and `now` when dense."""
    if now * own <= wanted and built == now:
        return own
    return wanted // now if now < wanted and wanted % now == 0 and own % (wanted // now) == 0 else 1


def verify_plan(
    root: nn.Module,
    layers: dict[str, nn.Module],
    call: Call,
    steps: dict[str, Step],
    calls: list[tuple[str, Pair, Pair]],
) -> None:
    """Raise ModelError unless a run of the dense network has the calls of the original and the planned map sizes."""
    sizes = _Sizes(layers)
    overrides = make_overrides(root, {name: step for name, step in steps.items() if step.is_changed})
    with override_attributes(overrides):
        try:
            with sizes:
                observe(root, layers, call[0], sizes, kwargs=call[1], keep_overrides=True)
        except Exception as error:
            raise make_refusal(root, f"it fails so ({type(error).__name__}: {_get_first_line(error)})") from error
    if [name for name, _, _ in sizes.calls] != [name for name, _, _ in calls]:
        raise make_refusal(root, "it takes another path so")
    for (name, came, gone), (_, was_in, was_out) in zip(sizes.calls, calls, strict=True):
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
    _verify_starts(root, layers, steps, calls, overrides)


def _verify_starts(
    root: nn.Module,
    layers: dict[str, nn.Module],
    steps: dict[str, Step],
    calls: list[tuple[str, Pair, Pair]],
    overrides: Overrides,
) -> None:
    """Raise ModelError unless layers that downsample the same map start at the same position."""
    starts: dict[tuple[Pair, Pair], Pair] = {}
    for name, came, _ in calls:
        step, module = steps.get(name), layers.get(name)
        if step is None or not step.is_changed or step.whole:
            continue
        start = (0, 0)
        if isinstance(module, nn.Conv2d) and not is_stock(module):
            tried = _find_start(module, came, step, overrides)
            if tried is None:
                raise make_refusal(root, f"{name!r} ({type(module).__name__}) does not follow its stride or dilation")
            start = tried
        if step.stride != step.dense_stride and starts.setdefault((came, step.stride), start) != start:
            raise make_refusal(root, f"{name!r} ({type(module).__name__}) starts elsewhere than a layer beside it")


def _find_start(module: nn.Conv2d, came: Pair, step: Step, overrides: Overrides) -> Pair | None:
    """Return where the original positions start, per axis: 0, or 1 if they end with the last one; None if neither."""
    size = [n if n < 16 else n % s + 16 * s for n, s in zip(came, step.stride, strict=True)]  # "same" padding differs
    x = torch.randn(1, module.in_channels, *size, generator=torch.Generator().manual_seed(0)).to(module.weight)
    finer = [r * s // d for r, s, d in zip(step.rate, step.stride, step.dense_stride, strict=True)]
    try:
        with torch.no_grad():
            want = module.forward(x)
            with override_attributes(overrides):
                got = module.forward(x.repeat_interleave(step.rate[0], 2).repeat_interleave(step.rate[1], 3))
    except Exception:  # custom forward methods may raise anything
        return None
    for top in sorted({0, finer[0] - 1}):
        for left in sorted({0, finer[1] - 1}):
            same = got[:, :, top :: finer[0], left :: finer[1]]
            if same.shape == want.shape and (same - want).abs().max() <= 0.02 * want.abs().max():
                return int(top > 0), int(left > 0)
    return None


def _make_example_error(root: nn.Module, x: Tensor, error: Exception) -> ModelError:
    return ModelError(
        f"this {type(root).__name__} does not take the example {list(x.shape)} ({type(error).__name__}: "
        f"{_get_first_line(error)}); give example= with a batch that it takes."
    )


def _get_first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
