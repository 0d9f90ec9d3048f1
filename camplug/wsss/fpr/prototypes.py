"""Positive and negative prototypes of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.plug import send_to


class Padded(NamedTuple):
    """Padded prototypes of all classes, on their device, for indexing without synchronisation.

    Attributes:
        centre: mean of the positive prototypes of each class, 0 without any, [C,D].
        negative: negative prototypes of each class, padded with 0, [C,m,D].
        there: mask of the negative prototypes without padding, bool [C,m].
        spread: mean rms distance of the positive prototypes from their centre, [C]; see `Prototypes.spread`.
    """

    centre: Tensor
    negative: Tensor
    there: Tensor
    spread: Tensor


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Prototypes of C classes (Chen et al., ICCV 2023, section 3.2.1).

    Attributes:
        positive: centroids of the regions of each class, [k,D]; k is 0 for a class that no image shows.
        negative: mean features of the strongest false positives of each class, strongest first, [m,D].
        usable: mask of the negatives for pixel rectification (super-class filter) of each class, bool [m].
    """

    positive: list[Tensor]
    negative: list[Tensor]
    usable: list[Tensor]

    def __post_init__(self) -> None:
        if not len(self.positive) == len(self.negative) == len(self.usable):
            raise InputError(
                f"prototypes of {len(self.positive)}, {len(self.negative)} and {len(self.usable)} classes; "
                "give positive, negative and usable of the same classes."
            )
        rows = [*self.positive, *self.negative]
        if any(x.ndim != 2 for x in rows) or len({x.shape[1] for x in rows if len(x)}) > 1:
            shapes = sorted({str(list(x.shape)) for x in rows})
            raise InputError(f"prototypes of every class are [k,D] with one D for all; got {', '.join(shapes)}.")
        if any(x.shape != y.shape[:1] for x, y in zip(self.usable, self.negative, strict=True)):
            raise InputError("usable has one bool for every negative prototype; give [m] for every [m,D].")

    def to(self, device: torch.device | str) -> Prototypes:
        """Move the prototypes to a device."""
        return Prototypes(*([x.to(device) for x in part] for part in (self.positive, self.negative, self.usable)))

    @cached_property
    def padded(self) -> Padded:
        """Padded prototypes without a graph, cached."""
        width = max((x.shape[1] for x in (*self.positive, *self.negative) if len(x)), default=0)
        most = max(map(len, self.negative), default=0)

        def pad(rows: Tensor, count: int) -> Tensor:
            more = rows.new_zeros(count - len(rows), width)
            return torch.cat([rows.detach(), more]) if len(rows) else more

        centre = torch.stack([x.detach().mean(0) if len(x) else pad(x, 1)[0] for x in self.positive])
        there = torch.tensor([[k < len(x) for k in range(most)] for x in self.negative], dtype=torch.bool)
        negative = torch.stack([pad(x, most) for x in self.negative])
        return Padded(centre, negative, send_to(there.view(len(self.negative), most), centre.device), self.spread)

    @cached_property
    def spread(self) -> Tensor:
        """Mean rms distance of the positive prototypes of each class from their centre, [C].

        A class with less than two prototypes has the mean spread of the others, or 1 if there are none.
        """
        centred = [x.detach() - x.detach().mean(0, keepdim=True) for x in self.positive]
        found = torch.stack([x.square().mean(1).sqrt().mean() if len(x) > 1 else x.sum() * 0 for x in centred])
        some = found[found > 0]
        return torch.where(found > 0, found, some.mean() if len(some) else 1.0)

    @cached_property
    def usable_negatives(self) -> list[Tensor | None]:
        """Usable negatives of each class, None where it has none; cached, since selecting them synchronises."""
        kept = torch.cat(self.usable).tolist() if self.usable else []
        found: list[Tensor | None] = []
        for negative in self.negative:
            own, kept = kept[: len(negative)], kept[len(negative) :]
            numbers = torch.tensor([k for k, use in enumerate(own) if use], dtype=torch.int64)
            found.append(negative.detach()[send_to(numbers, negative.device)] if len(numbers) else None)
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Return plain tensors for a checkpoint."""
        return {
            "positive": _join(self.positive),
            "positives": torch.tensor([len(x) for x in self.positive]),
            "negative": _join(self.negative),
            "negatives": torch.tensor([len(x) for x in self.negative]),
            "usable": torch.cat([torch.zeros(0, dtype=torch.bool), *(x.cpu() for x in self.usable)]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Prototypes:
        """Build prototypes from the result of `state_dict`.

        Raises:
            InputError: the state is something else.
        """
        try:
            positives, negatives = state["positives"].tolist(), state["negatives"].tolist()
            return cls(
                list(torch.split(state["positive"], positives)),
                list(torch.split(state["negative"], negatives)),
                list(torch.split(state["usable"], negatives)),
            )
        except (KeyError, RuntimeError, AttributeError, TypeError):
            raise InputError("this is not a state of Prototypes; give what state_dict() returned.") from None


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate all rows on the CPU, ignoring classes without rows."""
    some = [x.detach().cpu() for x in parts if len(x)]
    return torch.cat(some) if some else torch.zeros(0, parts[0].shape[1] if parts else 0)
