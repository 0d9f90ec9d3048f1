"""camplug plugs into any trained image classifier and shows where it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camplug import targets
from camplug._version import __version__
from camplug.errors import CamplugError, InputError, LayerError, ModelError, TargetError
from camplug.explain import (
    CAM,
    IMAGE,
    LPCAM,
    RISE,
    AblationCAM,
    Aligned,
    AttentionRollout,
    ClassConditional,
    ClassTokenAttention,
    Compete,
    Dense,
    EigenCAM,
    EigenGradCAM,
    Explainer,
    FinerCAM,
    FullyCAM,
    GradCAM,
    GradCAMPlusPlus,
    GradECLIP,
    GradientRollout,
    HiResCAM,
    ImageExplainer,
    Inputs,
    IterativeErasing,
    LayerCAM,
    LayerExplainer,
    LeGrad,
    LocalPrototypes,
    MultiView,
    Occlusion,
    PerImage,
    Propagate,
    ScoreCAM,
    Shared,
    SplitUnite,
    Wrapper,
    XGradCAM,
    best_seeds,
    create,
    fit_prototypes,
    list_methods,
    list_wrappers,
    register,
    register_wrapper,
)
from camplug.lazy import attach_lazy
from camplug.plug import Against, Layer, Tape, dense

if TYPE_CHECKING:
    from camplug.explain.explanation import Explanation
    from camplug.images.preprocess import Preprocess
    from camplug.images.sample import sample_photo
    from camplug.models import list_models, load_model


__all__ = [
    "CAM",
    "IMAGE",
    "LPCAM",
    "RISE",
    "AblationCAM",
    "Against",
    "Aligned",
    "AttentionRollout",
    "CamplugError",
    "ClassConditional",
    "ClassTokenAttention",
    "Compete",
    "Dense",
    "EigenCAM",
    "EigenGradCAM",
    "Explainer",
    "Explanation",
    "FinerCAM",
    "FullyCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradECLIP",
    "GradientRollout",
    "HiResCAM",
    "ImageExplainer",
    "InputError",
    "Inputs",
    "IterativeErasing",
    "Layer",
    "LayerCAM",
    "LayerError",
    "LayerExplainer",
    "LeGrad",
    "LocalPrototypes",
    "ModelError",
    "MultiView",
    "Occlusion",
    "PerImage",
    "Preprocess",
    "Propagate",
    "ScoreCAM",
    "Shared",
    "SplitUnite",
    "Tape",
    "TargetError",
    "Wrapper",
    "XGradCAM",
    "__version__",
    "best_seeds",
    "create",
    "dense",
    "fit_prototypes",
    "list_methods",
    "list_models",
    "list_wrappers",
    "load_model",
    "register",
    "register_wrapper",
    "sample_photo",
    "targets",
]

# image libraries are imported on first use
__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        "camplug.explain.explanation": ("Explanation",),
        "camplug.images.preprocess": ("Preprocess",),
        "camplug.images.sample": ("sample_photo",),
        "camplug.models": ("list_models", "load_model"),
    },
)
