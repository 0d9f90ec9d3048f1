"""Class activation map methods, one file each, and wrappers around them."""

from camplug.explain.ablation_cam import AblationCAM
from camplug.explain.base import Explainer, LayerExplainer
from camplug.explain.cam import CAM
from camplug.explain.class_tokens import ClassTokenAttention
from camplug.explain.compete import Compete
from camplug.explain.conditional import ClassConditional
from camplug.explain.dense import Dense
from camplug.explain.eigen_grad_cam import EigenGradCAM
from camplug.explain.eigencam import EigenCAM
from camplug.explain.erase import IterativeErasing
from camplug.explain.finer import FinerCAM
from camplug.explain.fully import FullyCAM
from camplug.explain.grad_eclip import GradECLIP
from camplug.explain.gradcam import GradCAM
from camplug.explain.gradcam_pp import GradCAMPlusPlus
from camplug.explain.hirescam import HiResCAM
from camplug.explain.image_explainer import ImageExplainer
from camplug.explain.inputs import IMAGE, Aligned, Inputs, PerImage, Shared
from camplug.explain.layercam import LayerCAM
from camplug.explain.legrad import LeGrad
from camplug.explain.local_prototypes import LocalPrototypes, fit_prototypes
from camplug.explain.lpcam import LPCAM
from camplug.explain.perturb import RISE, Occlusion
from camplug.explain.propagate import Propagate
from camplug.explain.registry import best_seeds, create, list_methods, list_wrappers, register, register_wrapper
from camplug.explain.rollout import AttentionRollout, GradientRollout
from camplug.explain.score_cam import ScoreCAM
from camplug.explain.split import SplitUnite
from camplug.explain.views import MultiView
from camplug.explain.wrapper import Wrapper
from camplug.explain.xgradcam import XGradCAM

__all__ = [
    "CAM",
    "IMAGE",
    "LPCAM",
    "RISE",
    "AblationCAM",
    "Aligned",
    "AttentionRollout",
    "ClassConditional",
    "ClassTokenAttention",
    "Compete",
    "Dense",
    "EigenCAM",
    "EigenGradCAM",
    "Explainer",
    "FinerCAM",
    "FullyCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradECLIP",
    "GradientRollout",
    "HiResCAM",
    "ImageExplainer",
    "Inputs",
    "IterativeErasing",
    "LayerCAM",
    "LayerExplainer",
    "LeGrad",
    "LocalPrototypes",
    "MultiView",
    "Occlusion",
    "PerImage",
    "Propagate",
    "ScoreCAM",
    "Shared",
    "SplitUnite",
    "Wrapper",
    "XGradCAM",
    "best_seeds",
    "create",
    "fit_prototypes",
    "list_methods",
    "list_wrappers",
    "register",
    "register_wrapper",
]
