"""camplug plugs into any trained image classifier and shows where it looks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camplug._version import __version__
from camplug.errors import CamplugError, InputError, LayerError, ModelError, TargetError
from camplug.explain import (
    CAM,
    IMAGE,
    Aligned,
    ClassConditional,
    Compete,
    Dense,
    EigenCAM,
    Explainer,
    FullyCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    Inputs,
    IterativeErasing,
    LayerCAM,
    LayerExplainer,
    MultiView,
    PerImage,
    Propagate,
    Shared,
    SplitUnite,
    Wrapper,
    XGradCAM,
    create,
    list_methods,
    list_wrappers,
    register,
    register_wrapper,
)
from camplug.plug import Against, Layer, Tape, dense

if TYPE_CHECKING:
    from camplug.explain.explanation import Explanation
    from camplug.explain.preprocess import Preprocess
    from camplug.models import list_models, load_model


__all__ = [
    "CAM",
    "IMAGE",
    "Against",
    "Aligned",
    "CamplugError",
    "ClassConditional",
    "Compete",
    "Dense",
    "EigenCAM",
    "Explainer",
    "Explanation",
    "FullyCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "InputError",
    "Inputs",
    "IterativeErasing",
    "Layer",
    "LayerCAM",
    "LayerError",
    "LayerExplainer",
    "ModelError",
    "MultiView",
    "PerImage",
    "Preprocess",
    "Propagate",
    "Shared",
    "SplitUnite",
    "Tape",
    "TargetError",
    "Wrapper",
    "XGradCAM",
    "__version__",
    "create",
    "dense",
    "list_methods",
    "list_models",
    "list_wrappers",
    "load_model",
    "register",
    "register_wrapper",
]

# imported on first access, since they import image libraries
_LAZY = {
    "Explanation": "camplug.explain.explanation",
    "Preprocess": "camplug.explain.preprocess",
    "list_models": "camplug.models",
    "load_model": "camplug.models",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'camplug' has no attribute {name!r}")
