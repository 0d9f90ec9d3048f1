"""Methods that show where a classifier looks, one file each, and everything that wraps a method."""

from camplug.explain.base import Explainer, LayerExplainer
from camplug.explain.cam import CAM
from camplug.explain.eigencam import EigenCAM
from camplug.explain.fully import FullyCAM
from camplug.explain.gradcam import GradCAM
from camplug.explain.gradcam_pp import GradCAMPlusPlus
from camplug.explain.hirescam import HiResCAM
from camplug.explain.layercam import LayerCAM
from camplug.explain.registry import create, list_methods, register
from camplug.explain.xgradcam import XGradCAM

__all__ = [
    "CAM",
    "EigenCAM",
    "Explainer",
    "FullyCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "LayerExplainer",
    "XGradCAM",
    "create",
    "list_methods",
    "register",
]
