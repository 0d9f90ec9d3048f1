"""DeepLab over any network: segmentation from pseudo-labels, with and without a term for saliency.

What trains (`DeepLabModule`, `train_deeplab`) needs lightning; the rest does not import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug.wsss.deeplab.settings import DeepLabSettings

if TYPE_CHECKING:
    from camplug.wsss.deeplab.files import load_deeplab, save_deeplab
    from camplug.wsss.deeplab.heads import ASPP, LargeFOV, V3Plus, rates
    from camplug.wsss.deeplab.losses import multiscale_loss, segmentation_loss, shrunk_labels
    from camplug.wsss.deeplab.module import DeepLabModule
    from camplug.wsss.deeplab.network import DeepLab, deeplab_over
    from camplug.wsss.deeplab.refinement import Refinement, activation_aware_loss
    from camplug.wsss.deeplab.run import DeepLabTraining, TrainedDeepLab, train_deeplab
    from camplug.wsss.deeplab.segmenter import Segmenter, make_predictions

_PLACES = {
    "files": ("load_deeplab", "save_deeplab"),
    "heads": ("ASPP", "LargeFOV", "V3Plus", "rates"),
    "losses": ("multiscale_loss", "segmentation_loss", "shrunk_labels"),
    "module": ("DeepLabModule",),
    "network": ("DeepLab", "deeplab_over"),
    "refinement": ("Refinement", "activation_aware_loss"),
    "run": ("DeepLabTraining", "TrainedDeepLab", "train_deeplab"),
    "segmenter": ("Segmenter", "make_predictions"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "ASPP",
    "DeepLab",
    "DeepLabModule",
    "DeepLabSettings",
    "DeepLabTraining",
    "LargeFOV",
    "Refinement",
    "Segmenter",
    "TrainedDeepLab",
    "V3Plus",
    "activation_aware_loss",
    "deeplab_over",
    "load_deeplab",
    "make_predictions",
    "multiscale_loss",
    "rates",
    "save_deeplab",
    "segmentation_loss",
    "shrunk_labels",
    "train_deeplab",
]


def __getattr__(name: str) -> Any:
    if name in _PLACE_OF:
        return getattr(import_module(f"{__name__}.{_PLACE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
