"""FPR: training against the false positives of class maps, found over a data set (Chen et al., ICCV 2023).

`Collector` needs scikit-learn and `FPRTraining` lightning; importing the package needs neither.
"""

from typing import TYPE_CHECKING

from camplug.explain.clustering import compute_centroids
from camplug.lazy import attach_lazy
from camplug.wsss.fpr.collector import Collector
from camplug.wsss.fpr.gather import PrototypePass
from camplug.wsss.fpr.groups import COCO_GROUPS, VOC_GROUPS, find_known_groups, get_group_numbers, is_usable
from camplug.wsss.fpr.losses import RegionContrast, distances, region_contrast_loss
from camplug.wsss.fpr.method import FPR
from camplug.wsss.fpr.pixels import PixelRectification, false_positive_pixels, pixel_rectification_loss
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.fpr.regions import make_class_masks, masked_mean

if TYPE_CHECKING:
    from camplug.wsss.fpr.lightning_module import FPRTraining

__all__ = [
    "COCO_GROUPS",
    "Collector",
    "FPR",
    "FPRTraining",
    "PixelRectification",
    "PrototypePass",
    "Prototypes",
    "RegionContrast",
    "VOC_GROUPS",
    "compute_centroids",
    "make_class_masks",
    "distances",
    "false_positive_pixels",
    "get_group_numbers",
    "find_known_groups",
    "masked_mean",
    "pixel_rectification_loss",
    "region_contrast_loss",
    "is_usable",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".lightning_module": ("FPRTraining",),
    },
)
