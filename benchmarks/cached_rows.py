"""The rows of `benchmarks/cached_training.py`; each is compared with its base."""

from __future__ import annotations

from typing import Any, NamedTuple

from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Method

OFF: dict[str, Any] = {"enhance": False, "decrease": False}
ALONE: dict[str, Any] = {"channel_attention": False, "spatial_attention": False}


class Row(NamedTuple):
    """A training.

    Attributes:
        label: name in the table.
        method: method of the package.
        base: row of the ordinary training of equal length, that this row is compared with; "" for that row itself.
        new_head: begin with a new head; a method with a neck that learns always does.
        epochs: epochs instead of those of the command.
        classes: the only classes that are labelled and scored; none for all.
    """

    label: str
    method: Method
    base: str = "ordinary"
    new_head: bool = False
    epochs: int | None = None
    classes: tuple[str, ...] = ()


ROWS: dict[str, Row] = {
    "ordinary": Row("ordinary", Method(), base=""),
    "atm": Row("ATM", ATM(fum=False)),
    "atm_present": Row("ATM, losses averaged over present classes", ATM(fum=False, average="present")),
    "plain": Row("ordinary, new head", Method(), base="", new_head=True),
}
