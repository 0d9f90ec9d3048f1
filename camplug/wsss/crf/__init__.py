"""Dense CRF that refines labels or scores at the edges of a photograph, without compiled extensions."""

from camplug.wsss.crf.densecrf import DenseCRF, refine_labels
from camplug.wsss.crf.lattice import Lattice
from camplug.wsss.crf.par import pixel_adaptive_refinement
from camplug.wsss.crf.settings import PRESETS, CRFSettings
from camplug.wsss.crf.unary import make_unary_from_labels, make_unary_from_scores

__all__ = [
    "PRESETS",
    "CRFSettings",
    "DenseCRF",
    "Lattice",
    "pixel_adaptive_refinement",
    "refine_labels",
    "make_unary_from_labels",
    "make_unary_from_scores",
]
