"""Triton kernel that computes a layer's map from activation and gradient in one pass; imported on first use."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 16384  # values of the activation that one program holds
PROGRAMS = 512  # programs that fill a large GPU
LEAST_SHARE = 8  # channels of a program whose sum is written to be added to others
COALESCED = 16  # neighbouring channels that one program reads together in channels_last

# values made of activation a and gradient g, and weights of the channels, in the order of `camplug.explain.fold.KINDS`
FULLY = tl.constexpr(0)  # relu(a) relu(g), by 1 / its maximum
GRAD_CAM = tl.constexpr(1)  # a, by the mean of g
XGRAD = tl.constexpr(2)  # a, by sum(a g) / sum(a)
POSITIVE = tl.constexpr(3)  # relu(a) relu(g)
LAYER_CAM = tl.constexpr(4)  # a relu(g)
PRODUCT = tl.constexpr(5)  # a g
_LAST_WEIGHTED = 2  # kinds up to this one need whole channels
_CLAMPED = (1, 2, 4, 5)  # kinds whose map is the positive part of the sum


@triton.jit
def _positive(x):
    return tl.where(x < 0, 0.0, x)  # keeps NaN, unlike tl.maximum


@triton.jit
def _make_values(a, g, kind: tl.constexpr):
    if kind == FULLY or kind == POSITIVE:
        return _positive(a) * _positive(g)
    if kind == LAYER_CAM:
        return a * _positive(g)
    if kind == PRODUCT:
        return a * g
    return a


@triton.jit
def _reduce_channels(a, g, kind: tl.constexpr):
    """Return two statistics of each channel of a tile [channels, positions]."""
    if kind == FULLY:
        peak = tl.max(_positive(a) * _positive(g), 1)
        return peak, peak
    if kind == GRAD_CAM:
        total = tl.sum(g, 1)
        return total, total
    return tl.sum(a * g, 1), tl.sum(a, 1)


@triton.jit
def _weigh_channels(first, second, positions, kind: tl.constexpr, tiny: tl.constexpr):
    if kind == FULLY:
        return tl.where(first < tiny, 0.0, 1.0 / tl.where(first < tiny, 1.0, first))
    if kind == GRAD_CAM:
        return first / positions
    return tl.where(second == 0, 0.0, first / tl.where(second == 0, 1.0, second))


@triton.jit
def _weight_kernel(
    a_ptr, g_ptr, out_ptr, channels, positions,
    a_n, a_k, a_p, g_n, g_k, g_p,
    kind: tl.constexpr, block_k: tl.constexpr, block_p: tl.constexpr, tiny: tl.constexpr,
):  # fmt: skip
    """Write the weights [N,K] of channels that are too large for one tile."""
    image = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * block_k + tl.arange(0, block_k)
    first = tl.zeros([block_k], tl.float32)
    second = tl.zeros([block_k], tl.float32)
    for start in range(0, positions, block_p):
        p = start + tl.arange(0, block_p)
        inside = (k[:, None] < channels) & (p[None, :] < positions)
        g = tl.load(g_ptr + image * g_n + k[:, None] * g_k + p[None, :] * g_p, inside, 0.0).to(tl.float32)
        a = g
        if kind != GRAD_CAM:
            a = tl.load(a_ptr + image * a_n + k[:, None] * a_k + p[None, :] * a_p, inside, 0.0).to(tl.float32)
        one, other = _reduce_channels(a, g, kind)
        if kind == FULLY:
            first = tl.maximum(first, one)
        else:
            first += one
            second += other
    weights = _weigh_channels(first, second, positions, kind, tiny)
    tl.store(out_ptr + image * channels + k, weights, k < channels)


@triton.jit
def _map_kernel(
    a_ptr, g_ptr, weight_ptr, out_ptr, channels, positions, share,
    a_n, a_k, a_p, g_n, g_k, g_p,
    kind: tl.constexpr, has_weights: tl.constexpr, clamp: tl.constexpr,
    block_k: tl.constexpr, block_p: tl.constexpr, tiny: tl.constexpr,
):  # fmt: skip
    """Write the sum over a share of the channels, [N,shares,P]; whole channels in one tile are weighted here."""
    image = tl.program_id(0).to(tl.int64)
    p = tl.program_id(2) * block_p + tl.arange(0, block_p)
    begin = tl.program_id(1) * share
    total = tl.zeros([block_p], tl.float32)
    for start in range(begin, min(begin + share, channels), block_k):
        k = start + tl.arange(0, block_k)
        inside = (k[:, None] < channels) & (p[None, :] < positions)
        a = tl.load(a_ptr + image * a_n + k[:, None] * a_k + p[None, :] * a_p, inside, 0.0).to(tl.float32)
        if has_weights and kind != FULLY:
            values = a
        else:
            g = tl.load(g_ptr + image * g_n + k[:, None] * g_k + p[None, :] * g_p, inside, 0.0).to(tl.float32)
            values = _make_values(a, g, kind)
        if has_weights:
            weights = tl.load(weight_ptr + image * channels + k, k < channels, 0.0)
            values *= weights[:, None]
        elif kind <= XGRAD:
            first, second = _reduce_channels(a, g, kind)
            values *= _weigh_channels(first, second, positions, kind, tiny)[:, None]
        total += tl.sum(values, 0)
    if clamp:
        total = _positive(total)
    row = image * tl.num_programs(1) + tl.program_id(1)
    tl.store(out_ptr + row * positions + p, total, p < positions)


def fold_layer(activation: Tensor, gradient: Tensor, kind: int) -> Tensor:
    """Return the map [N,h,w] in float32 from activation and gradient [N,K,h,w], reading both once.

    Weighted channels of more positions than a tile are read twice.
    """
    n, _, h, w = activation.shape
    with torch.cuda.device_of(activation):
        return _fold(activation.flatten(2), gradient.flatten(2), kind).view(n, h, w)  # views in both memory layouts


class Plan(NamedTuple):
    """Division of a layer [N,K,P] among programs.

    Attributes:
        block_k, block_p: channels and positions of a tile.
        two_passes: weights of the channels are computed first, since a tile does not hold a whole channel.
        share: channels of one program.
        shares: programs beside each other, whose sums are added.
        columns: tiles of positions.
    """

    block_k: int
    block_p: int
    two_passes: bool
    share: int
    shares: int
    columns: int


def plan_fold(n: int, channels: int, positions: int, channels_last: bool, kind: int) -> Plan:
    """Return how a layer's map is computed."""
    block_k = COALESCED if channels_last and channels > 1 else 1
    block_p = triton.next_power_of_2(positions)
    is_weighted = kind <= _LAST_WEIGHTED
    is_large = block_k * block_p > TILE
    if is_large or not is_weighted:
        block_p = min(block_p, max(TILE // block_k // 4, 1))
    if block_p < 64:  # small maps: more channels at a time
        block_k = max(block_k, min(triton.next_power_of_2(channels), 2048 // block_p))
    columns = triton.cdiv(positions, block_p)
    shares = max(1, min(triton.cdiv(PROGRAMS, n * columns), channels // max(block_k, LEAST_SHARE)))
    share = triton.cdiv(triton.cdiv(channels, block_k), shares) * block_k
    return Plan(block_k, block_p, is_large and is_weighted, share, triton.cdiv(channels, share), columns)


def _fold(a: Tensor, g: Tensor, kind: int) -> Tensor:
    """Return the map [N,P] of P positions."""
    n, channels, positions = a.shape
    plan = plan_fold(n, channels, positions, a.stride(1) == 1, kind)
    weights = _weigh(a, g, kind, plan) if plan.two_passes else None
    out = torch.empty(n, plan.shares, positions, dtype=torch.float32, device=a.device)
    clamp = kind in _CLAMPED
    _map_kernel[(n, plan.shares, plan.columns)](
        a, g, a if weights is None else weights, out, channels, positions, plan.share, *a.stride(), *g.stride(),
        kind=kind, has_weights=weights is not None, clamp=clamp and plan.shares == 1,
        block_k=plan.block_k, block_p=plan.block_p, tiny=torch.finfo(torch.float32).tiny,
        num_warps=_count_warps(plan),
    )  # fmt: skip
    total = out[:, 0] if plan.shares == 1 else out.sum(1)
    return total.clamp_min_(0) if clamp and plan.shares > 1 else total


def _weigh(a: Tensor, g: Tensor, kind: int, plan: Plan) -> Tensor:
    """Return the weights [N,K] of the channels."""
    n, channels, positions = a.shape
    out = torch.empty(n, channels, dtype=torch.float32, device=a.device)
    _weight_kernel[(n, triton.cdiv(channels, plan.block_k))](
        a, g, out, channels, positions, *a.stride(), *g.stride(),
        kind=kind, block_k=plan.block_k, block_p=plan.block_p, tiny=torch.finfo(torch.float32).tiny,
        num_warps=_count_warps(plan),
    )  # fmt: skip
    return out


def _count_warps(plan: Plan) -> int:
    values = plan.block_k * plan.block_p
    return 16 if values > 8192 else 8 if values > 2048 else 4
