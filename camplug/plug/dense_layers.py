"""Dense forms of single layers: stride removed, dilation increased, borders preserved."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camplug.errors import ModelError

Pair: TypeAlias = tuple[int, int]
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Step:
    """Change of a convolution or pooling in a dense network.

    Attributes:
        stride: original stride.
        dense_stride: stride in the dense network.
        rate: refinement of the input map, the factor of the dilation.
        whole: the original layer pools the whole map onto a single position.
    """

    stride: Pair
    dense_stride: Pair
    rate: Pair
    whole: bool

    @property
    def is_changed(self) -> bool:
        """True if the layer differs from the original."""
        return self.stride != self.dense_stride or self.rate != (1, 1)


def make_attributes(root: nn.Module, name: str, module: nn.Module, step: Step) -> dict[str, Any]:
    """Return the attributes of a layer in the dense network, by name."""
    if isinstance(module, nn.Conv2d):
        rate, dilation = step.rate, module.dilation
        found: dict[str, Any] = {
            "stride": step.dense_stride,
            "dilation": (dilation[0] * rate[0], dilation[1] * rate[1]),
        }
        if not isinstance(module.padding, str):
            found["padding"] = (module.padding[0] * rate[0], module.padding[1] * rate[1])
        around = module._reversed_padding_repeated_twice
        found["_reversed_padding_repeated_twice"] = [around[i] * rate[1 - i // 2] for i in range(4)]
        lopsided = around[::2] != around[1::2]  # padding="same" of an even kernel
        if is_stock(module) and (step.stride != step.dense_stride or module.padding_mode != "zeros" or lopsided):
            found["forward"] = types.MethodType(_Conv(step, module), module)
        return found
    if type(module).forward not in (nn.MaxPool2d.forward, nn.AvgPool2d.forward):
        raise make_refusal(root, f"{name!r} is a {type(module).__name__}, a pooling of its own kind")
    if step.whole:
        pool = F.adaptive_max_pool2d if isinstance(module, nn.MaxPool2d) else F.adaptive_avg_pool2d
        return {"forward": types.MethodType(_Whole(pool), module)}
    return {"forward": types.MethodType((_Max if isinstance(module, nn.MaxPool2d) else _Average)(step), module)}


def is_stock(module: nn.Conv2d) -> bool:
    """Return whether a convolution runs the code of `nn.Conv2d`."""
    kind = type(module)
    return kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward


class _Whole:
    """Forward of a pooling onto a single position, on a larger map."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = self.pool(x, 1)
        divisor = getattr(module, "divisor_override", None)
        kernel = as_pair(module.kernel_size)
        return out * (kernel[0] * kernel[1] / divisor) if divisor else out


class _Windowed:
    """Base of layers with windows; pads right and bottom so that branches of equal size stay equal."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def compute_padding(
        self, x: Tensor, kernel: Pair, padding: Pair, dilation: Pair, ceil_mode: bool = False
    ) -> list[int]:
        """Return the additional padding (left, right, top, bottom) for `F.pad`."""
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
            if ceil_mode and (count - 1) * own >= as_built + p:  # torch drops windows that start outside
                count -= 1
            wanted = max(min(count * own * rate, n), (count - 1) * own * rate + 1)
            add += [0, max(0, wanted - natural)]
        return add


class _Conv(_Windowed):
    """Forward of a convolution."""

    def __init__(self, step: Step, module: nn.Conv2d) -> None:
        super().__init__(step)
        self.around = list(module._reversed_padding_repeated_twice)  # left, right, top, bottom
        self.dilation = as_pair(module.dilation)

    def __call__(self, module: nn.Conv2d, x: Tensor) -> Tensor:
        rate = self.step.rate
        padding = (self.around[2], self.around[0])
        add = self.compute_padding(x, as_pair(module.kernel_size), padding, self.dilation)
        sides = [p * rate[1 - i // 2] for i, p in enumerate(self.around)]
        if module.padding_mode != "zeros" and any(sides):
            for axis, before, after in ((2, *sides[2:]), (3, *sides[:2])):
                index = _index_beyond(x.shape[axis], before, after, rate[axis - 2], module.padding_mode)
                x = x.index_select(axis, index.to(x.device))
            sides = [0, 0, 0, 0]
        sides = [p + a for p, a in zip(sides, add, strict=True)]
        even = sides[0] == sides[1] and sides[2] == sides[3]
        x = x if even else F.pad(x, sides)
        inside = (sides[2], sides[0]) if even else 0
        return F.conv2d(x, module.weight, module.bias, module.stride, inside, module.dilation, module.groups)


def _index_beyond(n: int, before: int, after: int, rate: int, mode: str) -> Tensor:
    """Return the source index of every position from -`before` to `n` + `after` of a padded axis.

    The finer map interleaves `rate` maps of the original resolution; each is mirrored (or repeated) on its own.
    """
    at = torch.arange(-before, n + after)
    start = at % rate
    step, last = (at - start) // rate, (n - 1 - start).clamp_min(0) // rate
    if mode == "reflect":
        step = last - (last - step.abs()).abs()
    elif mode == "circular":
        step = step % (last + 1)
    return (step.clamp_min(0).minimum(last) * rate + start).clamp_max(n - 1)


class _Max(_Windowed):
    """Forward of a max pooling."""

    def __call__(self, module: nn.MaxPool2d, x: Tensor) -> Tensor:
        kernel, padding, dilation = as_pair(module.kernel_size), as_pair(module.padding), as_pair(module.dilation)
        rate = self.step.rate
        add = self.compute_padding(x, kernel, padding, dilation, module.ceil_mode)
        p = (padding[0] * rate[0], padding[1] * rate[1])
        around = [p[1] + add[0], p[1] + add[1], p[0] + add[2], p[0] + add[3]]  # torch limits padding to half a kernel
        x = F.pad(x, around, value=float("-inf")) if any(around) else x
        spread = (dilation[0] * rate[0], dilation[1] * rate[1])
        return F.max_pool2d(x, kernel, self.step.dense_stride, 0, spread)


class _Average(_Windowed):
    """Forward of an average pooling."""

    def __call__(self, module: nn.AvgPool2d, x: Tensor) -> Tensor:
        kernel, padding, rate = as_pair(module.kernel_size), as_pair(module.padding), self.step.rate
        add = self.compute_padding(x, kernel, padding, (1, 1), module.ceil_mode)
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
        count = windows(F.pad(known, add))  # positions outside do not count
        return total / count.clamp_min(1) if any(add) or not module.count_include_pad else total / area


def get_stride(module: nn.Module | None) -> Pair | None:
    """Return the stride of a convolution or pooling; None for any other layer."""
    return as_pair(module.stride) if isinstance(module, (nn.Conv2d, *POOLS)) else None


def as_pair(value: Any) -> Pair:
    """Return a number, or a sequence of two, as a pair."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def make_refusal(root: nn.Module, why: str) -> ModelError:
    """Return the error for a model that cannot run dense; `why` is the reason."""
    return ModelError(
        f"this {type(root).__name__} cannot run at that output stride: {why}; use a larger output_stride, or the model "
        "as it is."
    )
