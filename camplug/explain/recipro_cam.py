"""ReciproCAM (Byun and Lee, 2024, arXiv 2209.14074)."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import LayerError
from camplug.explain.changed_layer import ChangedLayer, find_output_layout
from camplug.explain.inputs import Batch
from camplug.explain.masked_scores import find_probabilities
from camplug.explain.registry import register
from camplug.explain.score_cam import LayerScores, ScoreCAM
from camplug.explain.tensor_ops import widen
from camplug.plug import Layer, Size, Targets
from camplug.plug.grid import Layout


def make_position_masks(size: Size) -> Tensor:
    """Return the masks [P,h,w] of ReciproCAM for all positions of a map.

    Along each axis of several positions a mask is 1/2 at its position and 1/4 beside it.

    >>> make_position_masks((1, 3))[:, 0]
    tensor([[0.5000, 0.2500, 0.0000],
            [0.2500, 0.5000, 0.2500],
            [0.0000, 0.2500, 0.5000]])
    """
    masks = torch.ones(1, 1)
    for n in size:
        beside = torch.ones(n - 1)
        axis = torch.eye(n) / 2 + (beside.diag(1) + beside.diag(-1)) / 4 if n > 1 else torch.ones(1, 1)
        masks = torch.kron(masks, axis)
    return masks.view(-1, *size)


def recipro_cam(scores: Tensor) -> Tensor:
    r"""Compute ReciproCAM of one layer.

    .. math:: L_{ij} = y(F \odot M_{ij}) - \min_{ab} y(F \odot M_{ab})

    with the feature map F of the layer, and masks M that leave the surroundings of one position.

    Args:
        scores: y, class probabilities with the mask of each position, [N,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    return scores - scores.amin(tuple(range(1, scores.ndim)), keepdim=True)


@register("reciprocam")
class ReciproCAM(ScoreCAM):
    """ReciproCAM: class probability when only the surroundings of one position of the last feature map are left.

    Needs one copy of the network after the layer per position, and no gradients.

    Args:
        model: any module, which is never changed.
        layers: layers to read; default: the last feature map.
        batch_size: changed copies per forward pass.
        layer_weighting: weighting of several layers: None, "max" or "mean".
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        call: index of the call of a layer that runs several times; default: the maps of all calls are added.
        class_names: class names by index.
        preprocess: preprocessing for `explain`.

    Raises:
        LayerError: at call time, `reshape` is given, or the layer puts out no map: the places of the layer's own output
            must be known.
    """

    @override
    def score_layer(self, image: Batch, targets: Targets, layer: Layer, activation: Tensor) -> LayerScores:
        layout = find_output_layout(self.model, image, layer)
        size = activation.shape[2:]
        if self.reshape is not None or (layout is None and len(size) == 2):
            raise LayerError(
                f"ReciproCAM masks places of the layer {str(layer)!r}, which must be a map of the image; leave out "
                "reshape=, or name another layer."
            )
        masks = make_position_masks(size).to(activation)

        def mask(copies: Tensor, first: int) -> None:
            copies.mul_(spread_masks(masks[first : first + len(copies)], layout, copies.shape[1]))

        probabilities = find_probabilities(self.model, targets)
        image_dim = int(layout is not None and layout.order == "LNC")
        changed = ChangedLayer(self.model, image, targets, layer, image_dim, probabilities=probabilities)
        return LayerScores(changed.score(len(masks), mask, self.batch_size), changed.plain)

    @override
    def layer_map_of(self, activation: Tensor, scores: LayerScores, k: int) -> Tensor:
        return recipro_cam(widen(scores.changed[:, k]).view(1, *activation.shape[2:]))


def spread_masks(masks: Tensor, layout: Layout | None, length: int) -> Tensor:
    """Return masks [M,h,w] in the form of a layer's output with the images first; other tokens keep their values."""
    if layout is None or layout.order == "NCHW":
        return masks[:, None]
    if layout.order == "NHWC":
        return masks[..., None]
    tokens = masks.new_ones(len(masks), length)
    layout.pick(tokens, 1).copy_(masks.flatten(1))
    return tokens[..., None]
