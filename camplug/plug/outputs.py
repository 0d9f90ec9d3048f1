"""Class scores in a model's output: the tensor that holds them, and whether it holds logits or probabilities."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from camplug.errors import ModelError

Link: TypeAlias = Literal["logits", "softmax", "sigmoid"]
"""Kinds of a model's outputs: logits, or probabilities from a softmax or sigmoid."""

_NAMED = ("logits", "out")
_NO_SCORES = ("pool", "embed", "hidden", "feat")  # names of features
_SHAPE_ONLY = (
    "Squeeze", "Unsqueeze", "View", "Reshape", "UnsafeView", "Alias", "Clone", "ToCopy", "Select", "Slice", "Permute",
    "Transpose", "TBackward", "Expand",
)  # fmt: skip


def get_logits(output: Any, n: int | None = None) -> Tensor:
    """Return the class scores [N,C] in a model's output.

    These are the output itself, `.logits`, the entry "logits" or "out" of a dict, or else the only entry with the shape
    [N,C]; of logits and their probabilities, the logits. A vector [N] is one score per image (for a single image, the
    squeezed scores of [1,C]); [N,C,1,1] counts as [N,C].

    Args:
        output: output of the model.
        n: number of images, if known.

    Raises:
        ModelError: no entry or several may hold the class scores; a callable as `classes` selects one.
    """
    found = find_logits(output, n)
    if found is None:
        raise ModelError(_describe_refusal(output, n))
    found = _as_matrix(found, n)
    if found.ndim != 2:
        raise ModelError(
            f"the model puts out scores of shape {list(found.shape)}, not [N,C]; pass a callable as classes that gives "
            "one number per image, for instance classes=lambda out: out[:, 3].mean((1, 2))."
        )
    return found


def find_logits(output: Any, n: int | None = None) -> Tensor | None:
    """Return the tensor with the class scores, of any shape; None if there is none, or it is ambiguous."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits  # type: ignore[no-any-return]
    entries = _list_entries(output)
    for name in _NAMED:
        if name in entries:
            return entries[name]
    flat = _list_matrices(entries, n)
    found = _pick_logits(flat) if flat else next(iter(entries), None)
    return None if found is None else entries[found]


def _list_entries(output: Any) -> dict[str, Tensor]:
    """Return the floating-point tensors of a dict, tuple or list that may hold class scores, by name or number."""
    if isinstance(output, dict):
        items = {str(name): item for name, item in output.items()}
    elif isinstance(output, (tuple, list)):
        names = getattr(output, "_fields", range(len(output)))
        items = {str(name): item for name, item in zip(names, output, strict=True)}
    else:
        return {}
    tensors = {k: t for k, t in items.items() if isinstance(t, Tensor) and t.is_floating_point() and t.ndim > 0}
    named = {k: t for k, t in tensors.items() if "logit" in k.lower()}
    return named or {k: t for k, t in tensors.items() if not any(word in k.lower() for word in _NO_SCORES)}


def _list_matrices(entries: dict[str, Tensor], n: int | None) -> dict[str, Tensor]:
    """Return the entries with the shape [N,C], as matrices; vectors only if there are no others."""
    found = {k: _as_matrix(t, n) for k, t in entries.items() if t.ndim > 1 and _as_matrix(t, n).ndim == 2}
    found = found or {k: _as_matrix(t, n) for k, t in entries.items() if t.ndim == 1}
    n = next(iter(found.values())).shape[0] if found and n is None else n
    return {k: t for k, t in found.items() if t.shape[0] == n} or found


def _as_matrix(tensor: Tensor, n: int | None) -> Tensor:
    if tensor.ndim < 2 and n == 1:
        return tensor.reshape(1, -1)
    if tensor.ndim == 1:
        return tensor[:, None]
    return tensor.flatten(1) if tensor.ndim > 2 and all(s == 1 for s in tensor.shape[2:]) else tensor


def _pick_logits(flat: dict[str, Tensor]) -> str | None:
    """Return the name of the matrix [N,C] that holds the logits; None if it is ambiguous."""
    names, candidates = list(flat), list(flat.values())
    if len(candidates) == 1:
        return names[0]
    rank = _rate_probabilities(candidates)
    shapes = {c.shape for c in candidates}
    if len(shapes) > 1:  # probabilities have the width of the classes
        shapes = {c.shape for c, r in zip(candidates, rank, strict=True) if r}
        if len(shapes) != 1:
            return None
    fitting = [(r, i) for i, (c, r) in enumerate(zip(candidates, rank, strict=True)) if c.shape in shapes]
    return names[min(fitting)[1]]


@torch.no_grad()
def _rate_probabilities(candidates: list[Tensor]) -> list[int]:
    """Rate each matrix: 2 for probabilities of another matrix, 1 for rows with the sum 1, else 0.

    Synchronises once.
    """
    wide = [c.detach().double() if c.dtype == torch.float64 else c.detach().float() for c in candidates]
    flags = []
    for i, (own, given) in enumerate(zip(wide, candidates, strict=True)):
        follows = torch.zeros((), dtype=torch.bool, device=own.device)
        for j, other in enumerate(wide):
            if i != j and other.shape == own.shape and other.device == own.device:
                slack = max(_get_tolerance(given.dtype), _get_tolerance(candidates[j].dtype))
                for link in (torch.sigmoid, *((_softmax, _log_softmax) if own.shape[1] > 1 else ())):
                    follows = follows | ((link(other) - own).abs().max() <= slack)
        flags.append(torch.stack([follows, _sums_to_one(own, _get_tolerance(given.dtype))]).cpu())
    return [2 if follows else int(sums) for follows, sums in torch.stack(flags).tolist()]


def _softmax(t: Tensor) -> Tensor:
    return t.softmax(1)


def _log_softmax(t: Tensor) -> Tensor:
    return t.log_softmax(1)


def _get_tolerance(dtype: torch.dtype) -> float:
    """Return the tolerance of probabilities computed in this dtype."""
    return max(8 * torch.finfo(dtype).eps, 1e-5)


def _sums_to_one(scores: Tensor, slack: float) -> Tensor:
    if scores.shape[1] < 2:
        return torch.zeros((), dtype=torch.bool, device=scores.device)
    return (scores >= 0).all() & (scores <= 1 + slack).all() & ((scores.sum(1) - 1).abs() <= slack).all()


def are_probabilities(scores: Tensor) -> bool:
    """Return whether the rows of [N,C] are probabilities of exclusive classes: within [0, 1], with the sum 1."""
    return bool(_sums_to_one(scores.detach().float(), _get_tolerance(scores.dtype)))


def find_link(scores: Tensor) -> Link | None:
    """Return the kind of a model's outputs from their autograd graph; None without a graph.

    >>> z = torch.zeros(1, 2, requires_grad=True)
    >>> find_link(z.sigmoid().squeeze()), find_link(z * 2), find_link(z.detach())
    ('sigmoid', 'logits', None)
    """
    node = scores.grad_fn
    if node is None:
        return None
    for _ in range(8):
        name = node.name()
        if name.startswith("Softmax"):
            return "softmax"
        if name.startswith(("Sigmoid", "Hardsigmoid")):
            return "sigmoid"
        before = [parent for parent, _ in node.next_functions if parent is not None]
        if len(before) != 1 or not name.startswith(_SHAPE_ONLY):
            break
        node = before[0]
    return "logits"


def _describe_refusal(output: Any, n: int | None) -> str:
    flat = _list_matrices(_list_entries(output), n)
    if len(flat) < 2:
        return (
            f"the model puts out {type(output).__name__} without a tensor of class scores; pass a callable as classes, "
            "for instance classes=lambda out: out['head'][:, 3]."
        )
    listed = ", ".join(f"{name} {list(t.shape)}" for name, t in flat.items())
    name = next(iter(flat))
    key = repr(name) if isinstance(output, dict) else name if name.isdecimal() else None
    read = f"out.{name}" if key is None else f"out[{key}]"
    return (
        f"the model puts out several tensors that may be class scores ({listed}); say which, for instance "
        f"classes=lambda out: {read}[:, 3], or give a model that puts out the scores only."
    )
