"""Ablation-CAM (Desai and Ramaswamy, WACV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from camplug.errors import LayerError
from camplug.explain.changed_layer import ChangedLayer, find_output_layout
from camplug.explain.inputs import Batch
from camplug.explain.registry import register
from camplug.explain.score_cam import LayerScores, ScoreCAM
from camplug.explain.tensor_ops import weighted_sum, widen
from camplug.plug import Layer, Targets


def ablation_cam(activation: Tensor, score: Tensor, ablated: Tensor) -> Tensor:
    r"""Compute Ablation-CAM of one layer (eq. 3 and 4).

    .. math:: w_k = \frac{y - y_k}{|y|}, \quad L = \mathrm{relu}\Big(\sum_k w_k A_k\Big)

    The paper divides by y. Its sign must not turn the map into evidence against the class, so |y| is taken; where y is
    positive that is the same.

    Args:
        activation: A, [N,K,h,w].
        score: y, [N].
        ablated: y_k, scores with channel k set to 0, [N,K].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    drop = widen(score)[:, None] - widen(ablated)
    size = widen(score).abs()[:, None].clamp_min(torch.finfo(drop.dtype).tiny)
    return weighted_sum(widen(activation), (drop / size).to(widen(activation[:0]).dtype)).clamp_min_(0)


@register("ablationcam")
class AblationCAM(ScoreCAM):
    """Ablation-CAM: channels weighted by the drop of the score when they are set to 0; no gradients.

    The network up to the layer runs once for all channels of an image, where the rest of the network takes a batch of
    another size from there on (checked by one copy that is not changed); otherwise all of it runs for every channel.

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
        LayerError: at call time, `reshape` is given: the channels of the layer's own output must be known.
    """

    @override
    def score_layer(self, image: Batch, targets: Targets, layer: Layer, activation: Tensor) -> LayerScores:
        if self.reshape is not None:
            raise LayerError(f"AblationCAM sets channels of the layer {str(layer)!r} to 0, so leave out reshape=.")
        layout = find_output_layout(self.model, image, layer)
        order = "NCHW" if layout is None else layout.order
        changed = ChangedLayer(self.model, image, targets, layer, int(order == "LNC"))

        def remove(copies: Tensor, first: int) -> None:
            for row, copy in enumerate(copies):
                copy.select(0 if order == "NCHW" else -1, first + row).zero_()

        return LayerScores(changed.score(activation.shape[1], remove, self.batch_size), changed.plain)

    @override
    def layer_map_of(self, activation: Tensor, scores: LayerScores, k: int) -> Tensor:
        return ablation_cam(activation, scores.plain[k][None], scores.changed[:, k][None])
