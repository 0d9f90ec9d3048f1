"""DeepLab on any network: segmentation from pseudo-labels, with an optional saliency loss.

`DeepLabTraining` and `train_deeplab` need lightning; nothing else imports it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.deeplab.settings import DeepLabNetworkSettings, DeepLabSettings, SegmenterSettings

if TYPE_CHECKING:
    from camplug.wsss.deeplab.checkpoint import load_deeplab, save_deeplab
    from camplug.wsss.deeplab.heads import ASPP, LargeFOV, V3Plus, get_dilations
    from camplug.wsss.deeplab.lightning_module import DeepLabTraining
    from camplug.wsss.deeplab.losses import multiscale_loss, segmentation_loss, shrink_labels
    from camplug.wsss.deeplab.network import DeepLab, build_deeplab
    from camplug.wsss.deeplab.refinement import Refinement, activation_aware_loss
    from camplug.wsss.deeplab.segmenter import Segmenter, make_predictions, prepare_predictions
    from camplug.wsss.deeplab.train import train_deeplab


__all__ = [
    "ASPP",
    "DeepLab",
    "DeepLabTraining",
    "DeepLabNetworkSettings",
    "DeepLabSettings",
    "LargeFOV",
    "Refinement",
    "Segmenter",
    "SegmenterSettings",
    "V3Plus",
    "activation_aware_loss",
    "build_deeplab",
    "load_deeplab",
    "make_predictions",
    "prepare_predictions",
    "multiscale_loss",
    "get_dilations",
    "save_deeplab",
    "segmentation_loss",
    "shrink_labels",
    "train_deeplab",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".checkpoint": ("load_deeplab", "save_deeplab"),
        ".heads": ("ASPP", "LargeFOV", "V3Plus", "get_dilations"),
        ".losses": ("multiscale_loss", "segmentation_loss", "shrink_labels"),
        ".lightning_module": ("DeepLabTraining",),
        ".network": ("DeepLab", "build_deeplab"),
        ".refinement": ("Refinement", "activation_aware_loss"),
        ".train": ("train_deeplab",),
        ".segmenter": ("Segmenter", "make_predictions", "prepare_predictions"),
    },
)
