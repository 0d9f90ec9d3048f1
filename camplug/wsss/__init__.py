"""From image-level labels to segmentation: companions of the plug, imported only when asked for."""
