"""Data sets with image-level labels and masks: VOC, COCO, a folder of one's own, and scenes drawn on the spot."""

from camplug.wsss.data.coco import COCO
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.folder import Folder
from camplug.wsss.data.opening import open_data
from camplug.wsss.data.palette import voc_palette
from camplug.wsss.data.scenes import Scenes
from camplug.wsss.data.voc import VOC, VOC_CLASSES

__all__ = ["COCO", "Folder", "Scenes", "SegmentationData", "VOC", "VOC_CLASSES", "open_data", "voc_palette"]
