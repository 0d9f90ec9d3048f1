"""Warnings of maps that show nothing, with the cause: empty, constant, or the same for several classes."""

from __future__ import annotations

import warnings
from itertools import pairwise

import torch
from torch import Tensor

from camplug.errors import CamplugError
from camplug.explain.base import Explainer, LayerExplainer
from camplug.explain.batch import call_model, check_batch
from camplug.explain.explanation import Explanation
from camplug.explain.inputs import Inputs
from camplug.explain.wrapper import Wrapper
from camplug.models.class_names import get_class_title
from camplug.plug import Layer, resolve_classes

# frames between a warning here and the caller of `Explainer.explain`
DEPTH = 6


def warn_of_useless_maps(
    explainer: Explainer, one: Explanation, maps: Tensor, x: Tensor, inputs: Inputs | None = None
) -> None:
    """Warn of maps that show nothing.

    Args:
        explainer: explainer that made them.
        one: explanation of one photograph.
        maps: its maps [K,h,w], before they were laid on the photograph.
        x: input of the model, [C,H,W].
        inputs: further inputs of the model for this photograph.
    """
    messages = []
    if one.logits is not None and bool(one.logits.isnan().any()):
        broken = [
            get_class_title(c, one.all_names, len(one.logits)) for c in one.logits.isnan().nonzero()[:3, 0].tolist()
        ]
        messages.append(f"the model's output is NaN for {', '.join(broken)}, so that there are no probabilities.")
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    constant = high - low <= 100 * torch.finfo(torch.float32).eps * high.abs()
    for k, (peak, flat) in enumerate(zip(one.maps.amax((1, 2)).tolist(), constant.tolist(), strict=True)):
        if peak == 0 and one.link != "logits" and (one.probability(k) or 0) > 0.999:
            continue  # warned of already: saturated probability
        if peak == 0:
            messages.append(_describe_empty_map(one, k) + _find_cause(explainer, one.classes[k], x, inputs))
        elif flat and maps.shape[1] * maps.shape[2] > 1:
            messages.append(
                f"the {one.method} map of {one.names[k]!r} is constant, so that it shows no place; take layers with "
                "more than one position (layers=)."
            )
    for message in [*messages, *_describe_equal_maps(explainer, one)]:
        warnings.warn(message, stacklevel=DEPTH)


def _describe_empty_map(one: Explanation, k: int) -> str:
    if one.evidence == "negative":
        return f"no evidence against {one.names[k]!r}: its {one.method} map is all 0"
    return f"no positive evidence for {one.names[k]!r}: its {one.method} map is all 0"


def _find_cause(explainer: Explainer, cls: int, x: Tensor, inputs: Inputs | None) -> str:
    """Return the end of the sentence about an empty map, from one more pass."""
    while isinstance(explainer, Wrapper):
        explainer = explainer.explainer
    if not isinstance(explainer, LayerExplainer) or not explainer.needs_gradient or cls < 0:
        return "."
    peaks = [0.0, 0.0]

    def add(layer: Layer, activation: Tensor, gradient: Tensor) -> None:
        for i, tensor in enumerate((activation, gradient)):
            peaks[i] = max(peaks[i], float(tensor.abs().max()))

    try:
        batch = check_batch(explainer.model, x[None], inputs)
        with explainer.tape(batch.where) as tape:
            output = call_model(explainer.model, batch)
            targets = resolve_classes([[cls]], output, 1, explainer.evidence)
            tape.backward(targets.compute_scores(output, 0), add)
    except CamplugError:  # the pass is for the sentence only
        return "."
    if peaks[1] == 0:
        return ", because the score has no gradient there (its head holds zeros, or an activation is off or saturated)."
    return ", because its layers hold only zeros." if peaks[0] == 0 else "; its layers speak against it, if at all."


def _describe_equal_maps(explainer: Explainer, one: Explanation) -> list[str]:
    """Return a sentence about classes with the same map, if there are any."""
    maps, same = one.normalized_maps(), set[int]()
    order = maps.mean((1, 2)).argsort().tolist()  # equal maps are neighbours
    for i, k in pairwise(order):
        differ = (one.classes[i], type(one.classes[i])) != (one.classes[k], type(one.classes[k]))
        if differ and bool(maps[k].any()) and float((maps[k] - maps[i]).abs().max()) <= 1e-5:
            same |= {i, k}
    if not same:
        return []
    while isinstance(explainer, Wrapper):
        explainer = explainer.explainer
    cause = (
        "its layers serve these classes alike; take later ones (layers=), or Compete"
        if explainer.knows_classes
        else "it does not depend on the class; take GradCAM or FullyCAM to tell them apart"
    )
    return [f"the {one.method} maps of {', '.join(repr(one.names[k]) for k in sorted(same))} are the same: {cause}."]
