"""Label maps in the files of annotation tools, and back: COCO, CVAT, Label Studio, LabelMe."""

from camplug.wsss.exchange.formats import FORMATS, read_label_maps, write_label_maps
from camplug.wsss.exchange.shapes import LabelledImage

__all__ = ["FORMATS", "LabelledImage", "read_label_maps", "write_label_maps"]
