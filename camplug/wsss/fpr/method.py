"""Settings of FPR."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings
from camplug.wsss.fpr.groups import find_known_groups, get_group_numbers
from camplug.wsss.fpr.losses import ContrastDistance

if TYPE_CHECKING:
    from camplug.wsss.fpr.lightning_module import FPRTraining

GROUPS = ("auto", "voc", "coco", "none")


@dataclass(frozen=True)
class FPR(Method):
    """Continue training a classifier against false positives of its maps (FPR, Chen et al., ICCV 2023).

    Before every epoch a pass over the data set computes prototypes: features of each class, and of the regions where
    its map is falsely active in images without it. With both weights at 0 this is ordinary training.

    Args:
        clusters: maximum number of positive prototypes per class.
        negatives: maximum number of negative prototypes per class.
        theta: threshold of the region of a class map, relative to its maximum.
        temperature: divisor of the distances in the region contrast.
        offset: summand of these distances; 0 in the paper, 0.1 in its code.
        distance: distance of the region contrast: rms over channels, as in the paper's code, l2, as in its text, or
            spread (ours), rms in units of the class's own spread, with temperature 1.
        region_contrast: weight of the region contrast; 0 for none.
        pixel_rectification: weight of the pixel rectification; 0 for none.
        groups: super-classes whose members give each other no negatives for pixel rectification: voc, coco, none, or
            auto, which detects the classes of VOC and COCO. A configuration file may list the classes of each group.
        pass_scales: sizes of the photographs in the pass for prototypes, relative to the crop; maps are averaged on
            the grid of the first. Published: 1,0.5,1.5,2, which takes 7.5 times as long.
        pass_flip: use every mirrored photograph in the pass, too, as published.

    Raises:
        InputError: an option is out of range.
    """

    name: ClassVar[str] = "fpr"
    needs_trained: ClassVar[bool] = True

    clusters: int = 10
    negatives: int = 10
    theta: float = 0.1
    temperature: float = 13.0
    offset: float = 0.1
    distance: ContrastDistance = "rms"
    region_contrast: float = 0.12
    pixel_rectification: float = 15e-5
    groups: str | Mapping[str, Sequence[str]] = "auto"
    pass_scales: tuple[float, ...] = (1.0,)
    pass_flip: bool = True

    def __post_init__(self) -> None:
        for name, least in (("clusters", 1), ("negatives", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}; give at least {least}.")
        if not 0 <= self.theta < 1:
            raise InputError(f"theta={self.theta}; give a part of the maximum, at least 0 and less than 1.")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature={self.temperature}; give a number above 0.")
        for name in ("offset", "region_contrast", "pixel_rectification"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name}={getattr(self, name)}; give 0 or more.")
        if self.distance not in get_args(ContrastDistance):
            raise InputError(f"distance={self.distance!r}; allowed are {', '.join(get_args(ContrastDistance))}.")
        if not self.pass_scales or not all(0 < s < float("inf") for s in self.pass_scales):
            raise InputError(f"pass_scales={self.pass_scales}; give at least one number, each above 0.")
        if isinstance(self.groups, str):
            if self.groups not in GROUPS:
                near = difflib.get_close_matches(self.groups.lower(), GROUPS, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise InputError(f"groups={self.groups!r}{hint}; allowed are {', '.join(GROUPS)}.")
        else:  # plain data for files
            lists = {
                str(group): [names] if isinstance(names, str) else list(names) for group, names in self.groups.items()
            }
            object.__setattr__(self, "groups", lists)

    @property
    def needs_prototypes(self) -> bool:
        """Use of prototypes by any loss with a weight above 0."""
        return self.region_contrast > 0 or self.pixel_rectification > 0

    def group_numbers(self, classes: Sequence[str]) -> list[int]:
        """Return the number of every class's super-class, -1 for none.

        Raises:
            InputError: a class is in no group or in two.
        """
        chosen = find_known_groups(classes) if self.groups == "auto" else self.groups
        return get_group_numbers(classes, None if chosen == "none" else chosen)

    @override
    def make_module(self, network: Classifier, learning: LearningSettings, crops: ClassifierCrops) -> FPRTraining:
        """Make the Lightning module that trains a network."""
        from camplug.wsss.fpr.lightning_module import FPRTraining

        return FPRTraining(network, learning, self, crops)
