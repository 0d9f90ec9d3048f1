"""Data sets with image-level labels and masks: VOC, COCO, folders, synthetic scenes, unlabelled photographs."""

from camplug.wsss.data.coco import COCO
from camplug.wsss.data.dataset import SegmentationData
from camplug.wsss.data.folder import Folder
from camplug.wsss.data.opening import open_data, open_images, register_data
from camplug.wsss.data.palette import make_voc_palette
from camplug.wsss.data.photographs import Photographs
from camplug.wsss.data.scenes import Scenes
from camplug.wsss.data.voc import VOC, VOC_CLASSES

__all__ = [
    "COCO",
    "Folder",
    "Photographs",
    "Scenes",
    "SegmentationData",
    "VOC",
    "VOC_CLASSES",
    "open_data",
    "open_images",
    "register_data",
    "make_voc_palette",
]
