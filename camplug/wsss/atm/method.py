"""Settings of attention transfer and of the focused-unfocused module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.atm.attention import check_dilations
from camplug.wsss.atm.losses import Average
from camplug.wsss.atm.merge import BACKGROUND, SURE
from camplug.wsss.atm.views import GreyChange
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.method import Method, check_ramp
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings
from camplug.wsss.classifier.stages import AUTO
from camplug.wsss.train.settings import check_counts

if TYPE_CHECKING:
    from camplug.wsss.atm.lightning_module import ATMTraining

AVERAGES = get_args(Average)
LEVELS = ("pyramid", "last")
PLANES = ("all", "background")
FUM_PARTS = ("channel_attention", "spatial_attention", "atrous", "context")


@dataclass(frozen=True)
class ATM(Method):
    """Train a classifier with similar maps for brighter and darker views and a focused-unfocused module (ATM + FUM).

    Qin et al., TCSVT 2024. Without `enhance` and `decrease` only the classification loss and the module are used; a
    module without any part is left out. A loss of weight 0 is not computed.

    Args:
        enhance: also show each image with more contrast and brightness.
        decrease: also show each image with less contrast and brightness.
        enhanced: alpha and beta of the enhanced view, beta in grey levels of 0 to 255.
        decreased: alpha and beta of the decreased view.
        similarity: weight of the distance between the views' class maps (lambda_s).
        background_similarity: weight of the distance from the merged maps (lambda_bs).
        average: classes that both distances are averaged over: all, absent ones as 0, as in SEAM's code, or present
            ones, which makes them about ten times as large on VOC and can empty the maps.
        ramp: part of the training in which both weights rise from 0 (ours), since the maps of a new head can vanish
            under full weights.
        background: value of the background plane when maps are merged, 0 to 1.
        sure: threshold for positions where only one view finds a class, 0 to 1.
        planes: planes that are compared with the merged maps, all or background alone.
        fum: put the focused-unfocused module before the head; all options below are its own.
        level: features that positions are related by: pyramid, an earlier stage with 256 channels (`PyramidFUM`, which
            keeps a trained head), or last, the network's last map after its ReLU (`FUM`, which begins with a new head).
        stage: earlier stage of the pyramid: auto, half the stride of the last map; a stride in pixels of the network
            as built; or the name of a layer.
        lateral: channels of the level of the pyramid.
        channel_attention: weigh channels (squeeze and excitation).
        spatial_attention: weigh positions.
        atrous: atrous convolutions in series.
        context: replace each position by the mean of the positions related to it.
        dilations: dilations of the atrous convolutions; the paper prints 0,1,2,3 for 1,2,3,4.
        width: channels of the atrous convolutions; none is a quarter of those of the level.
        reduction: factor by which the middle layer of the channel attention has fewer channels.
        residual: add the attended features to the related ones (level last).
        centred: relate positions by their difference from the mean of the image (level last; the pyramid always does).
        most_positions: largest map, height times width, whose positions are related.

    Raises:
        InputError: an option is out of range.

    >>> ATM(decrease=False).changes
    (GreyChange(alpha=1.5, beta=30.0),)
    """

    name: ClassVar[str] = "atm"

    enhance: bool = True
    decrease: bool = True
    enhanced: tuple[float, float] = (1.5, 30.0)
    decreased: tuple[float, float] = (0.8, 15.0)
    similarity: float = 0.5
    background_similarity: float = 0.5
    average: Average = "all"
    ramp: float = 0.0
    background: float = BACKGROUND
    sure: float = SURE
    planes: Literal["all", "background"] = "all"
    fum: bool = True
    level: Literal["pyramid", "last"] = "pyramid"
    stage: str = AUTO
    lateral: int = 256
    channel_attention: bool = True
    spatial_attention: bool = True
    atrous: bool = True
    context: bool = True
    dilations: tuple[int, ...] = (1, 2, 3, 4)
    width: int | None = None
    reduction: int = 16
    residual: bool = False
    centred: bool = False
    most_positions: int = 4096

    def __post_init__(self) -> None:
        for name in ("enhanced", "decreased"):
            try:
                GreyChange(*getattr(self, name))
            except (InputError, TypeError):
                raise InputError(
                    f"{name}={getattr(self, name)}; give alpha, above 0, and beta, in grey levels of 0 to 255."
                ) from None
        for name in ("similarity", "background_similarity"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}={getattr(self, name)}; give a weight of 0 or more.")
        for name in ("background", "sure"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}; give a value from 0 to 1, as the maps have.")
        check_ramp(self.ramp)
        if self.average not in AVERAGES:
            raise InputError(f"average={self.average!r}; allowed are {', '.join(AVERAGES)}.")
        if self.planes not in PLANES:
            raise InputError(f"planes={self.planes!r}; allowed are {', '.join(PLANES)}.")
        check_dilations(self.dilations)
        check_counts(self, "width", "reduction", "most_positions", "lateral")
        self._check_level()

    def _check_level(self) -> None:
        """Raise InputError unless the options of the module fit its level."""
        if self.level not in LEVELS:
            raise InputError(f"level={self.level!r}; allowed are {', '.join(LEVELS)}.")
        for name in ("residual", "centred"):
            if getattr(self, name) and (self.level != "last" or not self.context):
                raise InputError(
                    f"{name}=True is of the context relation with level='last'; set these, or leave it out."
                )

    @property
    def changes(self) -> tuple[GreyChange, ...]:
        """Grey changes of the adjusted views, the enhanced one first."""
        enhanced = (GreyChange(*self.enhanced),) if self.enhance else ()
        return (*enhanced, GreyChange(*self.decreased)) if self.decrease else enhanced

    @override
    def get_neck_settings(self) -> dict[str, Any] | None:
        """Return the settings of the FUM, without a width of None and a stage of auto: a trained FUM is kept."""
        parts = {name: getattr(self, name) for name in FUM_PARTS}
        if not self.fum or not any(parts.values()):
            return None
        names = ["reduction", "most_positions", *(["width"] if self.width is not None else [])]
        settings = {**parts, "dilations": list(self.dilations), **{name: getattr(self, name) for name in names}}
        if self.level == "last":
            return {"kind": "fum", **settings, "residual": self.residual, "centred": self.centred}
        stage = {} if self.stage == AUTO else {"stage": self.stage}
        return {"kind": "pyramid_fum", **settings, **stage, "lateral": self.lateral}

    @override
    def make_module(self, network: Classifier, learning: LearningSettings, crops: ClassifierCrops) -> ATMTraining:
        """Make the Lightning module that trains a network."""
        from camplug.wsss.atm.lightning_module import ATMTraining

        return ATMTraining(network, learning, self, ids=crops.data.ids, seed=crops.seed)
