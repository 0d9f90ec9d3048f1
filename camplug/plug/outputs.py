"""The class scores in a model's output: which tensor they are, and whether they are logits or probabilities."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from camplug.errors import ModelError

Link: TypeAlias = Literal["logits", "softmax", "sigmoid"]
"""Kinds of a model's outputs: logits, or probabilities that a softmax or a sigmoid gave."""

_NAMED = ("logits", "out")
_NO_SCORES = ("pool", "embed", "hidden", "feat")  # entries that say of themselves that they hold features
_SHAPE_ONLY = (
    "Squeeze", "Unsqueeze", "View", "Reshape", "UnsafeView", "Alias", "Clone", "ToCopy", "Select", "Slice", "Permute",
    "Transpose", "TBackward", "Expand",
)  # fmt: skip


def get_logits(output: Any, n: int | None = None) -> Tensor:
    """The class scores [N,C] in a model's output.

    They are the tensor itself, `.logits`, the entry "logits" or "out" of a dict, or else the tensor among the entries
    that can be read as [N,C]; of probabilities and the logits that they come from, the logits. A vector [N] counts as
    one score per image (for a single image as the scores that `.squeeze()` left of [1,C]), [N,C,1,1] as [N,C].

    Args:
        output: what the model put out.
        n: the number of images, where it is known.

    Raises:
        ModelError: there is no such tensor, or nothing tells which of several it is; give a callable that says what to
            explain.
    """
    found = find_logits(output, n)
    if found is None:
        raise ModelError(_refusal(output, n))
    found = _matrix(found, n)
    if found.ndim != 2:
        raise ModelError(
            f"the model puts out scores of shape {list(found.shape)}, not [N,C]; pass a callable as classes that gives "
            "one number per image, for instance classes=lambda out: out[:, 3].mean((1, 2))."
        )
    return found


def find_logits(output: Any, n: int | None = None) -> Tensor | None:
    """The tensor that holds the class scores, of any shape; None if there is none, or nothing tells which it is."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits  # type: ignore[no-any-return]
    entries = _entries(output)
    for name in _NAMED:
        if name in entries:
            return entries[name]
    flat = _flat(entries, n)
    found = _scores_among(flat) if flat else next(iter(entries), None)
    return None if found is None else entries[found]


def _entries(output: Any) -> dict[str, Tensor]:
    """The floating-point tensors of a dict, tuple or list that may hold class scores, by name or number."""
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


def _flat(entries: dict[str, Tensor], n: int | None) -> dict[str, Tensor]:
    """Return the entries that can be matrices [N,C], as such; vectors only where there is nothing else."""
    found = {k: _matrix(t, n) for k, t in entries.items() if t.ndim > 1 and _matrix(t, n).ndim == 2}
    found = found or {k: _matrix(t, n) for k, t in entries.items() if t.ndim == 1}
    n = next(iter(found.values())).shape[0] if found and n is None else n
    return {k: t for k, t in found.items() if t.shape[0] == n} or found


def _matrix(tensor: Tensor, n: int | None) -> Tensor:
    if tensor.ndim < 2 and n == 1:
        return tensor.reshape(1, -1)
    if tensor.ndim == 1:
        return tensor[:, None]
    return tensor.flatten(1) if tensor.ndim > 2 and all(s == 1 for s in tensor.shape[2:]) else tensor


def _scores_among(flat: dict[str, Tensor]) -> str | None:
    """Return the name of the one of several matrices [N,C] that holds the logits; None where nothing tells."""
    names, candidates = list(flat), list(flat.values())
    if len(candidates) == 1:
        return names[0]
    rank = _likeness(candidates)
    shapes = {c.shape for c in candidates}
    if len(shapes) > 1:  # probabilities say which width is that of the classes
        shapes = {c.shape for c, r in zip(candidates, rank, strict=True) if r}
        if len(shapes) != 1:
            return None
    fitting = [(r, i) for i, (c, r) in enumerate(zip(candidates, rank, strict=True)) if c.shape in shapes]
    return names[min(fitting)[1]]


@torch.no_grad()
def _likeness(candidates: list[Tensor]) -> list[int]:
    """Rate how much each matrix looks like probabilities: 2 for a function of another, 1 by its sums, or 0.

    One wait for the device.
    """
    wide = [c.detach().double() if c.dtype == torch.float64 else c.detach().float() for c in candidates]
    flags = []
    for i, (own, given) in enumerate(zip(wide, candidates, strict=True)):
        follows = torch.zeros((), dtype=torch.bool, device=own.device)
        for j, other in enumerate(wide):
            if i != j and other.shape == own.shape and other.device == own.device:
                slack = max(_slack(given.dtype), _slack(candidates[j].dtype))
                for link in (torch.sigmoid, *((_softmax, _log_softmax) if own.shape[1] > 1 else ())):
                    follows = follows | ((link(other) - own).abs().max() <= slack)
        flags.append(torch.stack([follows, _sums_to_one(own, _slack(given.dtype))]).cpu())
    return [2 if follows else int(sums) for follows, sums in torch.stack(flags).tolist()]


def _softmax(t: Tensor) -> Tensor:
    return t.softmax(1)


def _log_softmax(t: Tensor) -> Tensor:
    return t.log_softmax(1)


def _slack(dtype: torch.dtype) -> float:
    """By how much probabilities computed in this format may miss their sum or their definition."""
    return max(8 * torch.finfo(dtype).eps, 1e-5)


def _sums_to_one(scores: Tensor, slack: float) -> Tensor:
    if scores.shape[1] < 2:
        return torch.zeros((), dtype=torch.bool, device=scores.device)
    return (scores >= 0).all() & (scores <= 1 + slack).all() & ((scores.sum(1) - 1).abs() <= slack).all()


def are_probabilities(scores: Tensor) -> bool:
    """Whether the rows of [N,C] are probabilities of exclusive classes: all within [0, 1], each row's sum 1."""
    return bool(_sums_to_one(scores.detach().float(), _slack(scores.dtype)))


def find_link(scores: Tensor) -> Link | None:
    """Return the kind of a model's outputs, by the operation that made them; None where there is no graph to tell.

    >>> z = torch.zeros(1, 2, requires_grad=True)
    >>> link_of(z.sigmoid().squeeze()), link_of(z * 2), link_of(z.detach())
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


def _refusal(output: Any, n: int | None) -> str:
    flat = _flat(_entries(output), n)
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
