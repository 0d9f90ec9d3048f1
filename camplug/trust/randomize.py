"""Cascading randomisation of weights (Adebayo et al., NeurIPS 2018, https://arxiv.org/abs/1810.03292)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camplug.errors import InputError, ModelError, TargetError
from camplug.explain.base import Explainer
from camplug.explain.batch import compute_logits
from camplug.explain.inputs import Batch
from camplug.plug import unwrap
from camplug.trust.similarity import Similarity, compare_maps, is_constant

STAGES = 6
"""Default number of stages of a cascade."""


@dataclass(frozen=True)
class Cascade:
    """Maps of one explainer while the weights of its model are randomised from the top layer down.

    Attributes:
        layers: name of the last layer that was randomised at each of S stages.
        shares: share of the layers that are random at each stage, the last one is 1.
        similarity: similarity [S,N] of each map to the one of the trained model; 0 where the random model's map is
            constant, nan where it is not finite.
        maps: maps [S,N,H,W].
    """

    layers: tuple[str, ...]
    shares: tuple[float, ...]
    similarity: Tensor
    maps: Tensor


def cascade(
    explainer: Explainer,
    batch: Batch,
    classes: list[int],
    maps: Tensor,
    *,
    stages: int = STAGES,
    similarity: Similarity = "rank",
    seed: int = 0,
) -> Cascade:
    """Compare maps with those of models whose layers are randomised, top layers first.

    A map that stays as it is shows the image and the architecture rather than what the model has learned.

    Args:
        explainer: any explainer; it and its model are copied and left as they are.
        batch: images with the model's other inputs.
        classes: class of each image.
        maps: maps [N,H,W] of the trained model.
        stages: number of stages; the layers are divided evenly.
        similarity: "rank" (Spearman), "ssim" or "cosine".
        seed: seed of the random weights.

    Raises:
        InputError: no stage.
        ModelError: the model cannot be copied, or has no weights.
    """
    layers, shares, similarities, found = [], [], [], []
    for layer, share, copied in randomize_layers(explainer, batch, stages=stages, seed=seed):
        try:
            changed = explain_classes(copied, batch, classes).to(maps)
        except TargetError:  # random weights may overflow
            changed = torch.full_like(maps, torch.nan)
        alike = torch.full((len(maps),), torch.nan)
        if bool(changed.isfinite().all()):
            alike = compare_maps(maps, changed, similarity).cpu().masked_fill(is_constant(changed).cpu(), 0)
        layers.append(layer)
        shares.append(share)
        similarities.append(alike)
        found.append(changed.cpu())
    return Cascade(tuple(layers), tuple(shares), torch.stack(similarities), torch.stack(found))


def randomize_layers(
    explainer: Explainer, batch: Batch, *, stages: int = STAGES, seed: int = 0
) -> Iterator[tuple[str, float, Explainer]]:
    """Yield copies of an explainer with more and more layers randomised, in the reverse order of their calls.

    Every weight of a layer is drawn from a normal distribution with the mean and the standard deviation of the trained
    weights, so that activations keep their order of magnitude; running statistics stay. All stages are one copy, which
    changes: use it before going on.

    Args:
        explainer: any explainer.
        batch: images for the run that shows the order of layers.
        stages: number of stages.
        seed: seed of the random weights.

    Yields:
        The name of the last layer that is random, the share of random layers, and the explainer.

    Raises:
        InputError: no stage.
        ModelError: the model cannot be copied, or has no weights.
    """
    if stages < 1:
        raise InputError(f"stages={stages}; give at least 1.")
    try:
        copied = copy.deepcopy(explainer)
    except Exception as error:
        raise ModelError(f"the model cannot be copied ({error}), so that its weights cannot be randomised.") from error
    layers = list_weighted_layers(copied.model, batch)[::-1]
    if not layers:
        raise ModelError("the model has no weights that could be randomised.")
    generator = torch.Generator().manual_seed(seed)
    drawn: set[int] = set()
    stops = sorted({max(1, round(len(layers) * (s + 1) / stages)) for s in range(stages)})
    done = 0
    for stop in stops:
        for _, layer in layers[done:stop]:
            _redraw(layer, generator, drawn)
        done = stop
        yield layers[stop - 1][0] or "model", stop / len(layers), copied


def list_weighted_layers(model: nn.Module, batch: Batch) -> list[tuple[str, nn.Module]]:
    """List the layers that own floating-point weights, in the order of their first calls.

    A layer that is not called itself (a projection inside of attention) counts with the layer around it.

    Args:
        model: network; it is run once.
        batch: images.
    """
    inner = unwrap(model)
    named = dict(inner.named_modules())
    order: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            order.setdefault(name, len(order))

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in named.items()]
    try:
        compute_logits(model, batch if len(batch) == 1 else batch.take([0]))
    finally:
        for handle in handles:
            handle.remove()

    def place(name: str) -> int:
        while name not in order and name:
            name = name.rpartition(".")[0]
        return order.get(name, -1)

    weighted = [
        (name, module)
        for name, module in named.items()
        if any(p.is_floating_point() for p in module.parameters(recurse=False))
    ]
    return sorted(weighted, key=lambda pair: place(pair[0]))


def explain_classes(explainer: Explainer, batch: Batch, classes: list[int]) -> Tensor:
    """Return the maps [N,H,W] of one class per image at the size of the images."""
    return torch.cat(explainer.run_batch(batch, [[c] for c in classes]).maps)


@torch.no_grad()
def _redraw(layer: nn.Module, generator: torch.Generator, drawn: set[int]) -> None:
    for weight in layer.parameters(recurse=False):
        if not weight.is_floating_point() or id(weight) in drawn:
            continue
        drawn.add(id(weight))  # weights that several layers share are drawn once
        values = weight.detach().cpu().double()
        spread = values.std() if values.numel() > 1 else values.abs().sum()
        fresh = torch.randn(values.shape, generator=generator, dtype=torch.float64) * spread + values.mean()
        weight.copy_(fresh.to(weight))
