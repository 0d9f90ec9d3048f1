"""Maps of several stages of a network from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch.nn.functional as F
from torch import Tensor

from camplug.plug import Tape, dense, get_patch_size, to_grid
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.stages import Stage, find_stage_layers

__all__ = ["Stage", "find_stage_layers", "compute_stage_maps"]


def compute_stage_maps(network: Classifier, x: Tensor, stages: Sequence[Stage]) -> tuple[Tensor, list[Tensor]]:
    """Compute feature maps before the neck: the last ones and those of earlier layers.

    Args:
        network: classifier, run once at its output stride.
        x: normalised images, [N,3,H,W].
        stages: layers from `find_stage_layers`.

    Returns:
        The last maps [N,K,h,w], and those of each stage [N,K_n,h,w], without a gradient and resized to the last grid
        (bilinear, corners not aligned).
    """
    body, stride = network.body, network.output_stride
    with nullcontext() if stride is None else dense(body, stride):
        if not stages:
            last: Tensor = body(x)
            return last, []
        with Tape(body, list({stage.layer for stage in stages}), grad=True) as tape:
            last = body(x)
            captured = {Stage(layer.name, layer.call): map_.detach() for layer, map_ in tape.captures}
    side, patch = (x.shape[-2], x.shape[-1]), get_patch_size(body.model)
    grids = [to_grid(captured[stage], side, patch, stage.layer) for stage in stages]
    size = last.shape[-2:]
    return last, [g if g.shape[-2:] == size else F.interpolate(g, size, mode="bilinear") for g in grids]
