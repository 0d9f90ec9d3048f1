"""Score-CAM (Wang et al., 2020, arXiv 1910.01279)."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.explain.base import LayerExplainer, Result
from camplug.explain.batch import call_model, check_batch, check_size, choose_calls, find_class_logits
from camplug.explain.fuse import normalize_map, resize_maps
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.masked_scores import check_batch_size, score_copies, split_images
from camplug.explain.registry import register
from camplug.explain.tensor_ops import weighted_sum, widen
from camplug.plug import Classes, Layer, MapSize, Selector, Size, Targets, resolve_classes


def score_cam(activation: Tensor, scores: Tensor) -> Tensor:
    r"""Compute Score-CAM of one layer (Algorithm 1).

    .. math:: \alpha_k = \frac{\exp S_k}{\sum_l \exp S_l}, \quad L = \mathrm{relu}\Big(\sum_k \alpha_k A_k\Big)

    The score of the baseline, which the paper subtracts from every S_k, cancels in the softmax.

    Args:
        activation: A, [N,K,h,w].
        scores: S, scores of the image masked by each channel, [N,K]; -inf for a channel that masks nothing.

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    weights = widen(scores).softmax(1).nan_to_num(0.0)  # 0 where every channel masks nothing
    return weighted_sum(widen(activation), weights.to(widen(activation[:0]).dtype)).clamp_min_(0)


class LayerScores(NamedTuple):
    """Scores of one image: of its changed copies [M,K], and as it is [K]."""

    changed: Tensor
    plain: Tensor


@register("scorecam")
class ScoreCAM(LayerExplainer):
    """Score-CAM: channels weighted by the score of the image masked with them; no gradients, one pass per channel.

    A channel is resized to the image (bilinear) and scaled to [0, 1] as a mask; a constant channel counts as 0. All
    classes of an image share the passes.

    Args:
        model: any module, which is never changed.
        layers: layers to read; default: the last feature map.
        batch_size: masked images per forward pass.
        layer_weighting: weighting of several layers: None, "max" or "mean".
        normalize: "max", "minmax" or None.
        evidence: "positive" or "negative".
        reshape: function from a layer's output to [N,C,h,w].
        call: index of the call of a layer that runs several times; default: the maps of all calls are added.
        class_names: class names by index.
        preprocess: preprocessing for `explain`.
    """

    needs_gradient: ClassVar[bool] = False
    needs_many_passes: ClassVar[bool] = True

    def __init__(
        self, model: nn.Module, layers: Selector | None = None, *, batch_size: int = 32, **options: Any
    ) -> None:
        super().__init__(model, layers, **options)
        self.batch_size = check_batch_size(batch_size)

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        raise NotImplementedError("Score-CAM needs the scores of masked images, not gradients")

    @override
    @torch.no_grad()
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs, images_only=False)
        sizes, n = check_size(batch, size), len(batch)
        with self.tape(batch.where) as tape:
            output = call_model(self.model, batch)
            targets = resolve_classes(classes, output, n, self.evidence)
            targets.check(output)
            if targets.score is not None:
                targets.compute_scores(output, 0)  # raises for what is not one number per image
            logits = find_class_logits(output, n)
            layers = [(layer, self.lay_on_grid(a, layer, batch)) for layer, a in choose_calls(tape, self.call)]
            del output
        maps = []
        for i, (image, own) in enumerate(split_images(batch, targets)):
            raw = self._explain_image(image, own, [(layer, a[i : i + 1]) for layer, a in layers], sizes[i])
            maps.append(normalize_map(raw, self.normalize, len(sizes[i])))
        return Result(maps, targets, logits)

    def _explain_image(self, image: Batch, targets: Targets, layers: list[tuple[Layer, Tensor]], size: Size) -> Tensor:
        """Return the maps [K,h,w] of one image at `size`, not normalised."""
        if targets.rounds == 0:
            return widen(image.x).new_zeros(0, *size)
        scored = [(a, self.score_layer(image, targets, layer, a)) for layer, a in layers]
        with torch.autocast(image.x.device.type, enabled=False):
            fused = [
                self.fuse([(self.layer_map_of(a, scores, k), a.shape[1]) for a, scores in scored])
                for k in range(targets.rounds)
            ]
            return torch.cat([one.result(size) for one in fused])

    def layer_map_of(self, activation: Tensor, scores: LayerScores, k: int) -> Tensor:
        """Compute the map [1,h,w] of one layer and class from its scores."""
        return score_cam(activation, scores.changed[:, k][None])

    def score_layer(self, image: Batch, targets: Targets, layer: Layer, activation: Tensor) -> LayerScores:
        """Score the image masked by each channel of a layer [1,C,h,w]; -inf for constant channels."""
        channels = widen(activation[0])
        low, high = channels.flatten(1).amin(1), channels.flatten(1).amax(1)

        def make(first: int, last: int) -> Tensor:
            masks = resize_maps(channels[first:last], image.spatial_size)
            masks = normalize_map(masks, "minmax", masks.ndim - 1)
            return image.x * masks[:, None].to(image.x.dtype)

        scores = widen(score_copies(self.model, image, targets, len(channels), make, self.batch_size))
        return LayerScores(scores.masked_fill((high == low)[:, None], float("-inf")), scores.new_zeros(scores.shape[1]))
