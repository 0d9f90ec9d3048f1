"""Settings of RPNet."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.method import Method, check_ramp
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.classifier.settings import LearningSettings
from camplug.wsss.rpnet.comparison import LARGEST_GROUP
from camplug.wsss.rpnet.groups import Groups
from camplug.wsss.rpnet.neck import EnhancedBlock, check_enhanced_block
from camplug.wsss.rpnet.smoothing import Border
from camplug.wsss.train.settings import check_counts

if TYPE_CHECKING:
    from camplug.wsss.rpnet.lightning_module import RPNetTraining
    from camplug.wsss.train.fit import Items

LAST = "last"


@dataclass(frozen=True)
class RPNet(Method):
    """Train a classifier with maps that agree with comparisons of images of one class (RPNet, region prototypes).

    Liu et al., Cross-Image Region Mining with Region Prototypical Network, IEEE Transactions on Multimedia. The images
    of a group share one head and the non-local blocks, where the authors' code has them for either image of a pair:
    groups of any size work, and no trained weights are discarded. A weight of 0 leaves only the classification loss.

    Args:
        images: group size, 1 to 4: images with a common class that are compared; a batch holds whole groups.
        each_first: every image is the first one of a group in every epoch, as in the authors' code, so that an epoch
            shows `images` times as many crops as the data set has photographs; without, it shows as many.
        width: channels that the last map is reduced to.
        stages: maps that prototypes are computed from, with commas: last (the reduced one), strides in pixels of the
            network as built (the last map of that stride), or names of layers.
        prototypes: weigh the features of the enhanced branch by the foreground probability; without, by 1 (ablation:
            what remains is the target averaged over the scales).
        enhanced_block: non-local block of the enhanced branch: own, as in the authors' code, or shared with the plain
            branch.
        threshold: share of the maximum from which a position is confident.
        regions: source of this maximum: channels, as in the authors' code, where with hundreds of channels nearly all
            positions are confident, or classes, the class maps of present classes (ours).
        random_part: probability of a confident position to be in the random part, which has a prototype, too; 1 leaves
            these out.
        scale: factor of the normalised foreground probability.
        smooth: smooth the foreground probability by a Gaussian.
        border: rule of the Gaussian at the borders: normalized, or zero padding, as in the authors' code.
        weight: weight of the distance between the two branches' class maps.
        ramp: part of the training in which the weight rises from 0 (ours), since the maps of a new head can vanish
            under the full weight.
        scales: image scales whose enhanced class maps are averaged, including 1, which alone has a gradient.

    Raises:
        InputError: an option is out of range.

    >>> RPNet(images=3, stages="last, layer2, layer3").stage_names
    ('last', 'layer2', 'layer3')
    """

    name: ClassVar[str] = "rpnet"

    images: int = 2
    each_first: bool = True
    width: int = 512
    stages: str = "last,8"
    prototypes: bool = True
    enhanced_block: EnhancedBlock = "own"
    threshold: float = 0.3
    regions: Literal["channels", "classes"] = "channels"
    random_part: float = 0.5
    scale: float = 1.3
    smooth: bool = True
    border: Border = "normalized"
    weight: float = 10.0
    ramp: float = 0.0
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)

    def __post_init__(self) -> None:
        if not 1 <= self.images <= LARGEST_GROUP:
            raise InputError(f"images={self.images}; give 1 to {LARGEST_GROUP}.")
        check_counts(self, "width")
        if not self.stage_names or len(set(self.stage_names)) < len(self.stage_names):
            raise InputError(f"stages={self.stages!r}; give each once: last, strides such as 8, or names of layers.")
        check_enhanced_block(self.enhanced_block)
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold={self.threshold}; give a number above 0 and below 1.")
        if self.regions not in ("channels", "classes"):
            raise InputError(f"regions={self.regions!r}; allowed are channels, classes.")
        if not 0 < self.random_part <= 1:
            raise InputError(f"random_part={self.random_part}; give a probability above 0 and at most 1.")
        if not 0 < self.scale < math.inf:
            raise InputError(f"scale={self.scale}; give a number above 0.")
        if self.border not in ("normalized", "zero"):
            raise InputError(f"border={self.border!r}; allowed are normalized, zero.")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight={self.weight}; give a weight of 0 or more.")
        check_ramp(self.ramp)
        if (
            1 not in self.scales
            or len(set(self.scales)) < len(self.scales)
            or not all(0 < scale < math.inf for scale in self.scales)
        ):
            raise InputError(f"scales={tuple(self.scales)}; give each once, above 0, and 1 among them.")

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(re.findall(r"[^\s,]+", self.stages))

    @property
    @override
    def group(self) -> int:
        """Number of images per item."""
        return self.images

    @override
    def get_neck_settings(self) -> dict[str, Any]:
        """Return the settings of a `RegionNeck`."""
        block = self.enhanced_block if self.weight else "shared"  # no parameters without a gradient
        return {"kind": "regions", "width": self.width, "enhanced_block": block}

    @override
    def make_items(self, crops: ClassifierCrops) -> Items:
        """Make groups of images that share a class."""
        return Groups(crops, self.images, each_first=self.each_first)

    @override
    def make_module(self, network: Classifier, learning: LearningSettings, crops: ClassifierCrops) -> RPNetTraining:
        """Make the Lightning module that trains a network."""
        from camplug.wsss.rpnet.lightning_module import RPNetTraining

        return RPNetTraining(network, learning, self, ids=crops.data.ids, seed=crops.seed)
