"""The rows of `benchmarks/cached_training.py`; each is compared with its base."""

from __future__ import annotations

from typing import Any, NamedTuple

from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Method
from camplug.wsss.fpr import FPR
from camplug.wsss.rpnet import RPNet

OFF: dict[str, Any] = {"enhance": False, "decrease": False}
RELATION: dict[str, Any] = {**OFF, "channel_attention": False, "spatial_attention": False, "atrous": False}
STRONG: dict[str, Any] = {"background": 0.1, "similarity": 2.0, "background_similarity": 2.0}  # chosen on train
ENTRY: dict[str, Any] = {"stage": "entry"}  # the cached layer
PAIRS: dict[str, Any] = {"stages": "last,entry", "each_first": False}  # as many steps as in the other rows
FARM = ("cow", "horse", "sheep")  # cats, dogs and people are in the photographs, but no labels tell of them
NONE: dict[str, Any] = {"groups": "none"}
SPREAD: dict[str, Any] = {"pixel_rectification": 0.0, "distance": "spread", "temperature": 1.0}


class Row(NamedTuple):
    """A training.

    Attributes:
        label: name in the table.
        method: method of the package.
        base: row of the ordinary training of equal length, that this row is compared with; "" for that row itself.
        new_head: begin with a new head.
        epochs: epochs instead of those of the command; 0 does not train.
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
    "atm_present": Row("ATM, losses averaged over present classes", ATM(fum=False, average="present")),
    "atm": Row("ATM", ATM(fum=False)),
    "atm_strong": Row("ATM, weights 2, background 0.1", ATM(fum=False, **STRONG)),
    "fum_relation": Row("FUM's relation alone", ATM(**RELATION, **ENTRY)),
    "fum_atrous": Row("FUM without its relation", ATM(**OFF, **ENTRY, context=False)),
    "fum": Row("FUM", ATM(**OFF, **ENTRY)),
    "atm_fum": Row("ATM, weights 2, background 0.1, + FUM", ATM(**STRONG, **ENTRY)),
    "start": Row("the trained classifier, not trained further", Method(), base="", epochs=0),
    "last_start": Row("+ relation of the last map, after its ReLU", ATM(**RELATION, level="last"), "start", epochs=0),
    "centred_start": Row(
        "+ relation of the last map, centred", ATM(**RELATION, level="last", centred=True), "start", epochs=0
    ),
    "pyramid_start": Row("+ relation of the stage of stride 16, centred", ATM(**RELATION, **ENTRY), "start", epochs=0),
    "rpnet_scales": Row("RPNet, four scales without prototypes", RPNet(prototypes=False, **PAIRS)),
    "rpnet": Row("RPNet, prototypes of all positions", RPNet(**PAIRS)),
    "rpnet_classes": Row("RPNet, prototypes of class regions", RPNet(regions="classes", **PAIRS)),
    "farm": Row("ordinary, cow, horse and sheep labelled", Method(), base="", classes=FARM),
    "farm_pr": Row(
        "FPR, L_PR at 0.002", FPR(region_contrast=0.0, pixel_rectification=0.002, **NONE), "farm", classes=FARM
    ),
    "farm_pr_published": Row("FPR, L_PR at 15e-5", FPR(region_contrast=0.0, **NONE), "farm", classes=FARM),
    "farm_rc": Row("FPR, L_RC", FPR(pixel_rectification=0.0, **NONE), "farm", classes=FARM),
    "farm_spread": Row("FPR, L_RC in units of the spread, 0.12", FPR(**SPREAD), "farm", classes=FARM),
    "farm_spread_12": Row(
        "FPR, L_RC in units of the spread, 1.2", FPR(region_contrast=1.2, **SPREAD), "farm", classes=FARM
    ),
    "rc": Row("FPR, L_RC", FPR(pixel_rectification=0.0)),
    "spread_12": Row("FPR, L_RC in units of the spread, 1.2", FPR(region_contrast=1.2, **SPREAD)),
}
