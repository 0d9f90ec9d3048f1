"""RPNet: region prototypes across images of one class.

Liu et al., Cross-Image Region Mining with Region Prototypical Network, IEEE Transactions on Multimedia.
Positions that resemble a confident region of any image of the group are foreground, too; class maps of features weighed
by this resemblance supervise the plain ones. `RPNetTraining` needs lightning; nothing else imports it.
"""

from typing import TYPE_CHECKING

from camplug.lazy import attach_lazy
from camplug.wsss.rpnet.comparison import foreground_probability, region_similarity
from camplug.wsss.rpnet.groups import Groups
from camplug.wsss.rpnet.losses import average_maps, self_supervised_loss
from camplug.wsss.rpnet.method import RPNet
from camplug.wsss.rpnet.neck import RegionNeck
from camplug.wsss.rpnet.nonlocal_block import NonLocal, nonlocal_mean
from camplug.wsss.rpnet.pairs import Partners
from camplug.wsss.rpnet.regions import compute_prototypes, drop_positions, find_confident_regions
from camplug.wsss.rpnet.smoothing import smooth_maps
from camplug.wsss.rpnet.stages import Stage, compute_stage_maps, find_stage_layers

if TYPE_CHECKING:
    from camplug.wsss.rpnet.lightning_module import RPNetTraining

__all__ = [
    "Groups",
    "NonLocal",
    "Partners",
    "RPNet",
    "RPNetTraining",
    "RegionNeck",
    "Stage",
    "average_maps",
    "find_confident_regions",
    "drop_positions",
    "foreground_probability",
    "nonlocal_mean",
    "compute_prototypes",
    "region_similarity",
    "self_supervised_loss",
    "smooth_maps",
    "find_stage_layers",
    "compute_stage_maps",
]

__getattr__, __dir__ = attach_lazy(
    __name__,
    {
        ".lightning_module": ("RPNetTraining",),
    },
)
