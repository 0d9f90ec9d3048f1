"""Ablation-CAM (Desai and Ramaswamy, WACV 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import LayerError
from camplug.explain.batch import call_model
from camplug.explain.inputs import Batch
from camplug.explain.masked_scores import read_scores
from camplug.explain.registry import register
from camplug.explain.score_cam import LayerScores, ScoreCAM
from camplug.explain.tensor_ops import weighted_sum, widen
from camplug.plug import Layer, Tape, Targets, find_layout, get_patch_size, unwrap
from camplug.plug.hooks import NullListener, hook_calls
from camplug.plug.tensors import find_first_tensor

CHANNELS = {"NCHW": 1, "NHWC": 3, "NLC": 2, "LNC": 2}


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
        with Tape(self.model, [""], forward_only=True, image=image.where):
            plain = read_scores(call_model(self.model, image), targets, 1)
        dims = self._find_channels(image, layer)
        alone = self._runs_from(image, targets, _Ablation(layer, dims, [-1, -1]), plain)
        found = []
        for first in range(0, activation.shape[1], self.batch_size):
            channels = list(range(first, min(first + self.batch_size, activation.shape[1])))
            given = image if alone else image.take([0] * len(channels))
            found.append(self._score_changed(given, targets, _Ablation(layer, dims, channels)))
        return LayerScores(torch.cat(found), plain[0])

    @override
    def layer_map_of(self, activation: Tensor, scores: LayerScores, k: int) -> Tensor:
        return ablation_cam(activation, scores.plain[k][None], scores.channels[:, k][None])

    def _find_channels(self, image: Batch, layer: Layer) -> tuple[int, int]:
        """Return the dimensions of the images and of the channels in a layer's output."""
        model = unwrap(self.model)
        shape = next(c.shape for c in image.trace(model).calls if c.name == layer.name)
        spans = image.trace(model).spans if len(shape) == 3 else {}
        found = find_layout(shape, image.size, get_patch_size(model), images=1, spans=spans)
        order = "NCHW" if found is None else found.order
        return (1 if order == "LNC" else 0), CHANNELS[order]

    def _score_changed(self, image: Batch, targets: Targets, change: _Ablation) -> Tensor:
        """Return the scores [M,K] of copies of an image that are changed at the layer."""
        with Tape(self.model, [""], forward_only=True, image=image.where), hook_calls(change):
            return read_scores(call_model(self.model, image), targets, len(change.channels))

    def _runs_from(self, image: Batch, targets: Targets, change: _Ablation, plain: Tensor) -> bool:
        """Return whether the model takes several copies from the layer on: unchanged ones give the plain scores."""
        try:
            scores = self._score_changed(image, targets, change)
        except Exception:  # a model may raise anything where the batch grows in the middle
            return False
        return torch.allclose(scores, plain.expand_as(scores), rtol=1e-3, atol=1e-4)


class _Ablation(NullListener):
    """Set one channel of a layer's output to 0 in every copy; -1 sets none."""

    def __init__(self, layer: Layer, dims: tuple[int, int], channels: list[int]) -> None:
        self.layer, self.dims, self.channels, self.calls = layer, dims, channels, 0

    @override
    def after(self, module: nn.Module, output: Any) -> Any:
        if module is not self.layer.module:
            return None
        self.calls += 1
        out, put_back = find_first_tensor(output)
        if self.calls - 1 != self.layer.call or out is None:
            return None
        of_images, of_channels = self.dims
        shape = list(out.shape)
        shape[of_images] = len(self.channels)
        copies = out.expand(shape).clone()
        for row, channel in enumerate(self.channels):
            if channel >= 0:
                copies.select(of_images, row).select(of_channels - (of_channels > of_images), channel).zero_()
        return put_back(copies)
