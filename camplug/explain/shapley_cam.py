"""ShapleyCAM (Cai, 2025, arXiv 2501.06261)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import LayerError
from camplug.explain.base import LayerExplainer, Result
from camplug.explain.batch import (
    call_model,
    check_batch,
    check_size,
    choose_calls,
    find_class_logits,
    finish_maps,
)
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.masked_scores import find_probabilities
from camplug.explain.registry import register
from camplug.explain.tensor_ops import weighted_sum, widen
from camplug.plug import Classes, Layer, MapSize, Tape, Targets, get_logits, resolve_classes, unwrap
from camplug.plug.freeze import Freeze
from camplug.plug.hooks import NullListener, hook_calls
from camplug.plug.tensors import find_first_tensor


def shapley_cam(activation: Tensor, gradient: Tensor, curvature: Tensor) -> Tensor:
    r"""Compute ShapleyCAM of one layer.

    .. math:: w_k = \mathrm{mean}_{ij}\big(g - \tfrac12 H A\big)_{kij}, \quad L = \mathrm{relu}\Big(\sum_k w_k A_k\Big)

    with the Hessian H of the utility with respect to A: a second-order expansion of the Shapley values of a game whose
    players are the positions.

    Args:
        activation: A, [N,K,h,w].
        gradient: g, [N,K,h,w].
        curvature: H A, [N,K,h,w].

    Returns:
        Map [N,h,w], not negative, not normalised.
    """
    weights = (widen(gradient) - widen(curvature) / 2).flatten(2).mean(2)
    return weighted_sum(widen(activation), weights).clamp_min_(0)


@register("shapleycam")
class ShapleyCAM(LayerExplainer):
    r"""ShapleyCAM: Grad-CAM with a second-order term, of the logit plus the logarithm of the class probability.

    .. math:: U_c = z_c + \log p_c \quad \text{(ReST)}

    The probability is the softmax, or the sigmoid for a multi-label model; a callable, and outputs that are
    probabilities, count as they are. The product of Hessian and A takes a second backward pass.
    """

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return shapley_cam(activation, gradient, torch.zeros_like(gradient))

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs, images_only=False)
        sizes, n = check_size(batch, size), len(batch)
        with self.tape(batch.where) as tape:  # finds layers and targets
            output = call_model(self.model, batch)
            targets = resolve_classes(classes, output, n, self.evidence)
            targets.check(output)
            wanted = [layer for layer, _ in choose_calls(tape, self.call)]
            logits = find_class_logits(output, n)
            del output
        leaves, guard = _Leaves(wanted), Freeze(list(unwrap(self.model).modules()))
        with Tape(self.model, (), attention=True, image=batch.where), hook_calls(leaves):  # differentiable attention
            output = call_model(self.model, batch)
            guard.apply()  # or gradients would be functions of the parameters, too
            try:
                rounds = range(targets.rounds)
                fusions = [self._fuse_round(self._compute_utility(output, targets, r), leaves, batch) for r in rounds]
            finally:
                guard.restore()
            del output
        leaves.found.clear()
        return Result(finish_maps(fusions, targets, batch.x, sizes, self.normalize), targets, logits)

    def _compute_utility(self, output: Any, targets: Targets, r: int) -> Tensor:
        """Return the signed utilities of round r."""
        value = targets.compute_scores(output, r)
        probabilities = find_probabilities(self.model, targets)
        if targets.score is not None or probabilities is None:
            return value
        logits = widen(get_logits(output, len(targets.classes)))
        one_by_one = probabilities is torch.sigmoid or logits.shape[1] == 1
        logs = F.logsigmoid(logits) if one_by_one else logits.log_softmax(1)
        return value + targets.compute_scores(logs, r)

    def _fuse_round(self, utilities: Tensor, leaves: _Leaves, batch: Batch) -> Fusion:
        """Return the fusion of the maps of all layers."""
        maps = []
        with torch.autocast(batch.x.device.type, enabled=False):
            for layer, leaf in leaves.found.items():
                (gradient,) = torch.autograd.grad(utilities.sum(), leaf, create_graph=True, allow_unused=True)
                if gradient is None:
                    continue
                curvature = self._multiply_hessian(gradient, leaf, layer)
                a, g, c = (self.lay_on_grid(t.detach(), layer, batch) for t in (leaf, gradient, curvature))
                maps.append((shapley_cam(a, g, c), a.shape[1]))
        if not maps:
            raise LayerError("no wanted layer feeds the score with a gradient; name others with layers=.")
        return self.fuse(maps)

    @staticmethod
    def _multiply_hessian(gradient: Tensor, leaf: Tensor, layer: Layer) -> Tensor:
        if not gradient.requires_grad:  # linear behind the layer
            return torch.zeros_like(leaf)
        product, cause = None, None
        try:
            (product,) = torch.autograd.grad(gradient, leaf, leaf.detach(), retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            cause = error
        if product is None:  # functions that are differentiable once cut the graph without an error
            raise LayerError(
                f"an operation behind the layer {str(layer)!r} has no second derivative, which ShapleyCAM needs; take "
                "one later layer with layers=, or GradCAM."
            ) from cause
        return product


class _Leaves(NullListener):
    """Cut the graph at the wanted calls of layers, and keep their outputs as leaves of what follows."""

    def __init__(self, wanted: list[Layer]) -> None:
        self.wanted = wanted
        self.found: dict[Layer, Tensor] = {}
        self._calls: dict[int, int] = {}

    @override
    def after(self, module: nn.Module, output: Any) -> Any:
        own = [layer for layer in self.wanted if layer.module is module]
        if not own:
            return None
        call = self._calls.get(id(module), 0)
        self._calls[id(module)] = call + 1
        layer = next((one for one in own if one.call == call), None)
        out, put_back = find_first_tensor(output)
        if layer is None or out is None:
            return None
        attached = out if out.requires_grad else out.detach().requires_grad_()
        self.found[layer] = attached
        return put_back(attached.clone())  # a clone: the model may overwrite it
