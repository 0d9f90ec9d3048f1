"""Class activation map methods, one file each, and wrappers around them."""

from camplug.explain.ablation_cam import AblationCAM
from camplug.explain.base import Explainer, LayerExplainer, Result
from camplug.explain.cam import CAM
from camplug.explain.class_tokens import ClassTokenAttention
from camplug.explain.compete import Compete
from camplug.explain.compiled import Compiled
from camplug.explain.conditional import ClassConditional
from camplug.explain.dense import Dense
from camplug.explain.dff import DeepFeatureFactorization
from camplug.explain.eigen_grad_cam import EigenGradCAM
from camplug.explain.eigencam import EigenCAM
from camplug.explain.erase import IterativeErasing
from camplug.explain.fem import FEM
from camplug.explain.finer import FinerCAM
from camplug.explain.fully import FullyCAM
from camplug.explain.grad_eclip import GradECLIP
from camplug.explain.gradcam import GradCAM
from camplug.explain.gradcam_pp import GradCAMPlusPlus
from camplug.explain.hirescam import HiResCAM
from camplug.explain.image_explainer import ImageExplainer
from camplug.explain.inputs import IMAGE, Aligned, Inputs, PerImage, Shared
from camplug.explain.kpca_cam import KPCACAM
from camplug.explain.layercam import LayerCAM
from camplug.explain.legrad import LeGrad
from camplug.explain.local_prototypes import LocalPrototypes, fit_prototypes
from camplug.explain.lpcam import LPCAM
from camplug.explain.perturb import RISE, Occlusion
from camplug.explain.pixels import IntegratedGradients, SmoothGrad
from camplug.explain.propagate import Propagate
from camplug.explain.propagate_attention import PropagateAttention
from camplug.explain.recipro_cam import ReciproCAM
from camplug.explain.refine_cam import RefineCAM
from camplug.explain.registry import best_seeds, create, list_methods, list_wrappers, register, register_wrapper
from camplug.explain.rollout import AttentionRollout, GradientRollout
from camplug.explain.saliency import InputXGradient, Saliency
from camplug.explain.score_cam import ScoreCAM
from camplug.explain.shapley_cam import ShapleyCAM
from camplug.explain.smooth_gradcam_pp import SmoothGradCAMPlusPlus
from camplug.explain.split import SplitUnite
from camplug.explain.views import MultiView
from camplug.explain.wrapper import Wrapper
from camplug.explain.xgradcam import XGradCAM

__all__ = [
    "CAM",
    "FEM",
    "IMAGE",
    "KPCACAM",
    "LPCAM",
    "RISE",
    "AblationCAM",
    "Aligned",
    "AttentionRollout",
    "ClassConditional",
    "ClassTokenAttention",
    "Compete",
    "Compiled",
    "DeepFeatureFactorization",
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
    "InputXGradient",
    "Inputs",
    "IntegratedGradients",
    "IterativeErasing",
    "LayerCAM",
    "LayerExplainer",
    "LeGrad",
    "LocalPrototypes",
    "MultiView",
    "Occlusion",
    "PerImage",
    "Propagate",
    "PropagateAttention",
    "ReciproCAM",
    "RefineCAM",
    "Result",
    "Saliency",
    "ScoreCAM",
    "ShapleyCAM",
    "Shared",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
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
