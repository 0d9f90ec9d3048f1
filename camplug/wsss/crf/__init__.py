"""Dense CRF and pixel-adaptive refinement (PAR) at the edges of a photograph, without compiled extensions."""

from camplug.wsss.crf.densecrf import DenseCRF, refine_labels, refine_photographs
from camplug.wsss.crf.lattice import Lattice
from camplug.wsss.crf.par import pixel_adaptive_refinement
from camplug.wsss.crf.refine_scores import refine_scores
from camplug.wsss.crf.settings import PRESETS, REFINEMENTS, CRFSettings, PARSettings, Refinement
from camplug.wsss.crf.unary import make_unary_from_labels, make_unary_from_scores

__all__ = [
    "PRESETS",
    "REFINEMENTS",
    "CRFSettings",
    "PARSettings",
    "Refinement",
    "DenseCRF",
    "Lattice",
    "pixel_adaptive_refinement",
    "refine_labels",
    "refine_photographs",
    "refine_scores",
    "make_unary_from_labels",
    "make_unary_from_scores",
]
