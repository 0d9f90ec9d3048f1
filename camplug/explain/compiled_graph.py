"""Graph of forward pass, gradients at the layers and layer maps, compiled by `torch.compile`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from camplug.explain.base import LayerExplainer
from camplug.explain.batch import call_model, choose_calls
from camplug.explain.fold import use_formulas
from camplug.explain.inputs import Batch
from camplug.plug import Layer, get_logits

if TYPE_CHECKING:  # slow to import
    from torch.fx import GraphModule

Compute: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[list[list[Tensor]], Tensor]]
"""Function of images, classes [R,N] and signs [R,N]: maps of each round, one per size, and logits [N,C]."""


def trace_explainer(explainer: LayerExplainer, batch: Batch, rounds: int, predict: bool) -> GraphModule:
    """Return the operations of an explainer as one graph of images, classes [R,N] and signs [R,N].

    The tape's hooks run while the graph is traced, so that the graph has none. Nothing is computed meanwhile: a model
    that looks at the values of its tensors cannot be traced, and raises.

    Args:
        explainer: explainer that computes layer maps from activation and gradient.
        batch: images of the shape, memory format and dtype that the graph is for.
        rounds: number of classes of each image.
        predict: explain the class with the largest logit; the classes are not read.
    """

    def compute(x: Tensor, classes: Tensor, signs: Tensor) -> tuple[list[list[Tensor]], Tensor]:
        images, found = batch.with_images(x), []
        with explainer.tape(batch.where) as tape:
            logits = get_logits(call_model(explainer.model, images), len(batch))
            chosen = {id(a) for _, a in choose_calls(tape, explainer.call)}
            for r in range(rounds):
                index = logits.detach().argmax(1) if predict else classes[r]
                maps: list[tuple[Tensor, int]] = []

                def add(layer: Layer, a: Tensor, g: Tensor, maps: list[tuple[Tensor, int]] = maps) -> None:
                    if id(a) in chosen:
                        maps.append(explainer.make_layer_map(layer, a, g, images))

                score = logits.gather(1, index[:, None])[:, 0] * signs[r]
                tape.backward(score, add, retain_graph=r + 1 < rounds)
                found.append(list(explainer.fuse(maps).sums.values()))
            return found, logits.detach()

    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

    given = torch.zeros(rounds, len(batch), dtype=torch.long, device=batch.x.device)
    with use_formulas():
        graph = make_fx(compute, tracing_mode="fake", _allow_non_fake_inputs=True)(
            batch.x, given, given.to(batch.x.dtype)
        )
    graph.graph.eliminate_dead_code()
    if batch.x.device.type == "cpu":
        replace_input_gradients(graph)
    graph.recompile()
    return graph


def replace_input_gradients(graph: GraphModule) -> None:
    """Replace gradients at inputs of convolutions by transposed convolutions, whose weights can be reordered once."""
    for node in list(graph.graph.nodes):
        if node.target is not torch.ops.aten.convolution_backward.default:
            continue
        gradient, given, weight, _, stride, padding, dilation, transposed, _, groups, mask = node.args
        users = list(node.users)
        if transposed or list(mask) != [True, False, False] or any(u.target is not operator.getitem for u in users):
            continue
        shapes = [_get_shape(t)[2:] for t in (given, gradient, weight)]
        rest = [
            size - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
            for size, out, k, s, p, d in zip(*shapes, stride, padding, dilation, strict=True)
        ]
        with graph.graph.inserting_before(node):
            args = (gradient, weight, None, stride, padding, dilation, True, rest, groups)
            replaced = graph.graph.call_function(torch.ops.aten.convolution.default, args)
        replaced.meta = {"val": users[0].meta["val"]}
        for user in users:
            user.replace_all_uses_with(replaced)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)


def _get_shape(node: Any) -> tuple[int, ...]:
    """Return the shape of a node's tensor."""
    value = node.meta["val"] if "val" in node.meta else getattr(node.graph.owning_module, node.target)
    return tuple(value.shape)


def compile_graph(graph: GraphModule, device: torch.device, backend: str) -> Compute:
    """Return the graph compiled for its one shape: with weights folded in on the CPU, as a CUDA graph on a GPU."""
    options: dict[str, Any] | None = (
        {"triton.cudagraphs": True} if backend == "inductor" and device.type == "cuda" else None
    )
    compiled = torch.compile(graph, fullgraph=True, dynamic=False, backend=backend, options=options)
    is_frozen = backend == "inductor" and device.type == "cpu"

    @torch.no_grad()
    def compute(x: Tensor, classes: Tensor, signs: Tensor) -> tuple[list[list[Tensor]], Tensor]:
        # an option of torch.compile comes too late: weights would be inputs of the graph already
        with _fold_weights() if is_frozen else nullcontext():
            maps, logits = compiled(x, classes, signs)
        if x.is_cuda:  # the next call of a CUDA graph writes into the same memory
            maps, logits = [[one.clone() for one in sums] for sums in maps], logits.clone()
        return maps, logits

    return compute


def _fold_weights() -> AbstractContextManager[None]:
    """Let inductor reorder weights when it compiles."""
    import torch._inductor.config as inductor

    return inductor.patch(freezing=True)  # type: ignore[no-any-return]
