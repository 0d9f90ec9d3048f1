"""Smooth Grad-CAM++ (Omeiza et al., 2019, arXiv 1908.01224)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.explain.base import LayerExplainer, Result
from camplug.explain.batch import (
    call_model,
    check_batch,
    check_size,
    choose_calls,
    find_class_logits,
    finish_maps,
)
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.pixels import check_noise, make_noise
from camplug.explain.registry import register
from camplug.explain.tensor_ops import safe_divide, weighted_sum, widen
from camplug.plug import Classes, Layer, MapSize, Selector, Targets, resolve_classes


def smooth_grad_cam_pp(activation: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    r"""Compute Smooth Grad-CAM++ of one layer (Sec. 3.2).

    .. math::
        \alpha_{kij} = \frac{D^2_{kij}}{2 D^2_{kij} + D^3_{kij} \sum_{ab} A_{kab}}, \quad
        w_k = \sum_{ij} \alpha_{kij}\,\mathrm{relu}(D^1_{kij}), \quad
        L = \mathrm{relu}\Big(\sum_k w_k A_k\Big)

    with D^p the mean over noisy copies of g^p, the p-th derivative as in Grad-CAM++. The numerator is the second
    derivative as there; the paper prints the first.

    Args:
        activation: A of the image itself, [N,K,h,w].
        first: D^1, [N,K,h,w].
        second: D^2, [N,K,h,w].
        third: D^3, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    a = widen(activation)
    dims = tuple(range(2, a.ndim))
    alpha = safe_divide(widen(second), 2 * widen(second) + widen(third) * a.sum(dims, keepdim=True))
    weights = (alpha * widen(first).clamp_min(0)).sum(dims)
    return weighted_sum(a, weights).clamp_min_(0)


class _Powers:
    """Sums of a gradient's powers."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def add(self, gradient: Tensor) -> None:
        g = widen(gradient)
        powers = [g, g**2, g**3]
        self.sums = [s + p for s, p in zip(self.sums, powers, strict=True)] if self.sums else powers


@register("smoothgradcam++")
class SmoothGradCAMPlusPlus(LayerExplainer):
    """Smooth Grad-CAM++: Grad-CAM++ with the derivatives averaged over noisy copies of the image.

    Args:
        model: any module, which is never changed.
        layers: layers to read; default: the last feature map.
        samples: number of noisy copies.
        noise: standard deviation of the noise as a share of the image's range.
        seed: seed of the noise.
        options: further arguments of `LayerExplainer`.
    """

    needs_many_passes: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        layers: Selector | None = None,
        *,
        samples: int = 8,
        noise: float = 0.15,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, layers, **options)
        check_noise(samples, noise)
        self.samples, self.noise, self.seed = samples, noise, seed

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return smooth_grad_cam_pp(activation, gradient, gradient**2, gradient**3)

    @override
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
            activations = {layer: self.lay_on_grid(a, layer, batch) for layer, a in choose_calls(tape, self.call)}
            del output
        fusions = []
        for powers in self._sum_powers(batch, targets, set(activations)):
            maps = []
            for layer, sums in powers.items():
                means = [total / self.samples for total in sums.sums]
                a = activations[layer]
                with torch.autocast(a.device.type, enabled=False):
                    maps.append((smooth_grad_cam_pp(a, *means), a.shape[1]))
            fusions.append(self.fuse(maps))
        return Result(finish_maps(fusions, targets, batch.x, sizes, self.normalize), targets, logits)

    def _sum_powers(self, batch: Batch, targets: Targets, wanted: set[Layer]) -> list[dict[Layer, _Powers]]:
        """Return the sums of the gradients' powers over noisy copies, per round of classes and layer."""
        found: list[dict[Layer, _Powers]] = [{} for _ in range(targets.rounds)]
        for noise in make_noise(batch.x, self.noise, self.seed, self.samples):
            with self.tape(batch.where) as tape:
                copies = batch.with_images(batch.x + noise)
                output = call_model(self.model, copies)
                for r, powers in enumerate(found):

                    def add(layer: Layer, a: Tensor, g: Tensor, powers: dict[Layer, _Powers] = powers) -> None:
                        if layer in wanted:
                            powers.setdefault(layer, _Powers()).add(self.lay_on_grid(g, layer, batch))

                    tape.backward(targets.compute_scores(output, r), add, retain_graph=r + 1 < targets.rounds)
        return found
