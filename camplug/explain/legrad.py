"""LeGrad (Bousselham et al., 2025, arXiv 2404.03214)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import LayerError
from camplug.explain.attention import AttentionExplainer, find_attention
from camplug.explain.base import Result
from camplug.explain.batch import call_model, check_batch, check_size, find_class_logits, finish_maps
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.plug import (
    AttentionCall,
    Classes,
    Layer,
    MapSize,
    Tape,
    named_layers,
    resolve_classes,
    unwrap,
)
from camplug.plug.grid import Layout
from camplug.plug.hooks import NullListener, hook_calls
from camplug.plug.tensors import find_first_tensor


def legrad(gradient: Tensor) -> Tensor:
    r"""Compute the map of one layer in LeGrad (Sec. 3.2).

    .. math:: E_l = \frac{1}{h\,T} \sum_h \sum_i \mathrm{relu}\Big(\frac{\partial s_l}{\partial A_{l,hi\cdot}}\Big)

    Args:
        gradient: gradient of the score s_l of the layer's own tokens with respect to its attention, [N,heads,T,S].

    Returns:
        Relevance of the keys [N,S], not negative, not normalised.
    """
    return widen(gradient).clamp_min(0).mean((1, 2))


@register("legrad")
class LeGrad(AttentionExplainer):
    """LeGrad: positive gradients of the attention, each layer's from a score of its own tokens; mean of the layers.

    The score of a layer is what the part of the network after the last block makes of the mean of that layer's tokens,
    as in the authors' code. With attention pooling in that part, it gets the tokens, and its attention is read instead,
    once per layer. Needs two forward passes and one backward pass per class.
    """

    @override
    def read_layer(self, call: AttentionCall, gradient: Tensor, read: Tensor, tokens: Layout) -> Tensor:
        return tokens.pick(legrad(gradient), -1)

    @override
    def combine(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        return torch.stack(parts).mean(0)

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes, n = check_size(batch, size), len(batch)
        with Tape(self.model, (), attention=True, forward_only=True, image=batch.where) as tape:
            output = call_model(self.model, batch)
            targets = resolve_classes(classes, output, n, self.evidence)
            targets.check(output)
            calls, tokens = find_attention(self.model, tape, batch, type(self).__name__)
            blocks, dim = self._find_blocks(list(calls.values()), batch)
            pools = self._has_pooling(list(calls.values()), blocks, batch)
            logits = find_class_logits(output, n)
            known = set(calls)  # without the attention between words
            del output, calls
        chosen = blocks if self.last is None else blocks[-self.last :]
        each = _EachLayer(blocks, len(chosen), dim, mean=not pools)
        with Tape(self.model, (), attention=True, image=batch.where) as tape, hook_calls(each):
            output = self._call_with_all(batch, logits, len(chosen))
            copies = len(chosen) + 1  # the last are the unchanged tokens
            repeated = targets.take([*range(n)] * copies)
            found = [call for call in tape.attention if call.layer in known]
            inside = {call.layer: any(m in blocks for m in call.inputs.path) for call in found}
            rounds = range(targets.rounds)
            scores = [repeated.compute_scores(output, r).view(copies, -1)[:-1] for r in rounds]
            fusions = [
                self._fuse_layers(tape, scores[r], inside, tokens, retain=r + 1 < targets.rounds) for r in rounds
            ]
            del output, scores, found
        each.tokens.clear()
        return Result(finish_maps(fusions, targets, batch.x, sizes, self.normalize), targets, logits)

    def _fuse_layers(
        self, tape: Tape, scores: Tensor, inside: dict[Layer, bool], tokens: Layout, *, retain: bool
    ) -> Fusion:
        """Return the fusion for the scores of all layers; `inside` says of each attention whether a block has it."""
        of_blocks: list[Tensor] = []
        of_pooling: list[Tensor] = []

        def add(layer: Layer, probabilities: Tensor, gradient: Tensor) -> None:
            if layer in inside:
                if not inside[layer]:  # [heads, N] of all copies may be split by the number of images alone
                    gradient = gradient.reshape((len(scores) + 1) * scores.shape[1], -1, *gradient.shape[2:])
                part = tokens.pick(legrad(gradient), -1)
                (of_blocks if inside[layer] else of_pooling).append(part)

        tape.backward(scores, add, retain_graph=retain)
        if of_pooling:  # [layers + 1, N, P], of the same attention
            relevance = of_pooling[0].view(len(scores) + 1, -1, of_pooling[0].shape[1])[:-1].mean(0)
        else:
            relevance = torch.stack(of_blocks).mean(0)
        fusion = Fusion(None)
        fusion.add(relevance.view(-1, tokens.h, tokens.w), 1)
        return fusion

    def _find_blocks(self, calls: list[AttentionCall], batch: Batch) -> tuple[list[nn.Module], int]:
        """Return the blocks, whose outputs are tokens, and the dimension of the images in these.

        A block is the outermost module around one attention alone that puts out one vector per token.
        """
        model = unwrap(self.model)
        trace, names = batch.trace(model), {id(m): name for name, m in named_layers(model).items()}
        traced = {c.name: c for c in trace.calls}
        around = Counter(id(module) for call in calls for module in call.inputs.path)
        found, orders = [], set()
        for call in calls:
            for module in call.inputs.path:
                known = traced.get(names[id(module)])
                laid = trace.find_layout(known) if known is not None and len(known.shape) == 3 else None
                if around[id(module)] == 1 and laid is not None:
                    found.append(module)
                    orders.add(laid.order)
                    break
        if not found or len(orders) != 1:
            raise LayerError(
                f"LeGrad needs blocks with one attention each that put out tokens, and this {self._get_kind()} has "
                "none; take GradientRollout."
            )
        return found, 1 if orders == {"LNC"} else 0

    @staticmethod
    def _has_pooling(calls: list[AttentionCall], blocks: list[nn.Module], batch: Batch) -> bool:
        """Return whether an attention that feeds the score is in none of the blocks."""
        trace = batch.trace(calls[0].inputs.path[0])
        feeding = {call.name for call in trace.calls if call.feeds}
        outside = [call for call in calls if not any(module in blocks for module in call.inputs.path)]
        return any(call.layer.name in feeding for call in outside)

    def _call_with_all(self, batch: Batch, logits: Tensor | None, layers: int) -> Any:
        """Return the model's output for the tokens of several layers.

        Raises:
            LayerError: the rest of the network does not treat the tokens of all layers like images of one batch.
        """
        n, scores, error = len(batch), None, None
        try:
            output = call_model(self.model, batch)
            scores = find_class_logits(output, (layers + 1) * n)
            if scores is None and logits is None:
                return output
        except Exception as raised:  # a model may raise anything where the batch grows in the middle
            error = raised
        if logits is None or scores is None or not torch.allclose(scores[-n:], logits, rtol=1e-2, atol=1e-3):
            raise LayerError(
                f"LeGrad gives the tokens of all layers to the part of the network after the last block, and this "
                f"{self._get_kind()} does not take a batch of another size there; take GradientRollout."
            ) from error
        return output


class _EachLayer(NullListener):
    """Pass the tokens of all blocks to the rest of the network as one batch; each block starts from constants.

    Args:
        blocks: all blocks.
        last: number of blocks to pass on, counted from the last one; its unchanged tokens follow.
        dim: dimension of the images.
        mean: put the mean of the tokens in the place of each.
    """

    def __init__(self, blocks: list[nn.Module], last: int, dim: int, *, mean: bool) -> None:
        self.blocks, self.last, self.dim, self.mean = blocks, last, dim, mean
        self.tokens: list[Tensor] = []

    @override
    def after(self, module: nn.Module, output: Any) -> Any:
        if not any(module is block for block in self.blocks):
            return None
        out, put_back = find_first_tensor(output)
        if out is None:
            return None
        self.tokens.append(out)
        if module is self.blocks[-1]:
            passed = self.tokens[-self.last :]
            if self.mean:
                passed = [tokens.mean(1 - self.dim, keepdim=True).expand_as(tokens) for tokens in passed]
            return put_back(torch.cat([*passed, out.detach()], self.dim))
        return put_back(out.detach().clone())  # a copy: the next block may add to it in place
