"""Kind of a model's outputs: logits or probabilities, of exclusive classes or not."""

from __future__ import annotations

from torch import Tensor, nn

from camplug.plug import Link, are_probabilities, unwrap


def is_multi_label(model: nn.Module) -> bool:
    """Return whether a model declares classes that are not exclusive (`multi_label`, or `config.problem_type`)."""
    inner = unwrap(model)
    problem = getattr(getattr(inner, "config", None), "problem_type", None)
    return getattr(inner, "multi_label", False) is True or problem == "multi_label_classification"


def find_output_link(model: nn.Module, link: Link | None, outputs: Tensor | None) -> Link:
    """Return the kind of the outputs: `link` if known, else from their values and the model's last layer.

    Args:
        model: classifier.
        link: kind that the graph shows, if it does.
        outputs: raw outputs [N,C] on the CPU.
    """
    if link is not None or outputs is None:
        return link or "logits"
    if are_probabilities(outputs):
        return "softmax"
    last = list(unwrap(model).modules())[-1]
    within = bool(((outputs >= 0) & (outputs <= 1)).all())
    return "sigmoid" if isinstance(last, nn.Sigmoid) and within else "logits"
