"""Saliency maps of a data set from colours, a folder, or a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from camplug.wsss.data import SegmentationData
from camplug.wsss.saliency import (
    KINDS,
    check_saliency,
    find_saliency_file,
    make_saliency,
    make_saliency_table,
    resize_saliency,
)
from camplug.wsss.saliency_network import load_network, parse_network
from camplug.wsss.store.identity import make_file_digest


class SaliencySource:
    """Saliency maps of a data set: computed from colours, read from a folder, or by the file of a network.

    Args:
        source: "contrast", "spectral", a folder of grey pictures, or a network; see `parse_network`.
        data: photographs.

    Attributes:
        settings: what identifies the source besides the files of a folder, as plain data.

    Raises:
        InputError: there is no such source, or a folder lacks maps.
    """

    def __init__(self, source: str | Path, data: SegmentationData) -> None:
        self.data, self.network, self.folder = data, parse_network(str(source)), None
        self.settings: Any = source
        if self.network is not None:
            self.settings = self.network.describe()
            return
        check_saliency(source, data)
        self._load = make_saliency(source)
        if source not in KINDS:
            self.folder, self.settings = Path(source).expanduser(), "a folder"

    def load(self, i: int) -> NDArray[np.float32]:
        """Load the map of image i, float32 [H,W] in [0, 1] at the photograph's size."""
        if self.network is None:
            return self._load(self.data, i)
        photo = self.data.photo(i)
        return resize_saliency(self._run(photo), (photo.height, photo.width))

    def get_digest(self, i: int) -> dict[str, str]:
        """Return the digest of a map that is read from a file; empty if it is computed."""
        file = None if self.folder is None else find_saliency_file(self.folder, self.data.ids[i])
        return {} if file is None else {"saliency": make_file_digest(file, "saliency map")}

    def compute_table(self) -> dict[str, str]:
        """Compute the digests of the maps that are read from files, by image name."""
        return {} if self.folder is None else make_saliency_table(self.folder, self.data)

    @cached_property
    def _run(self) -> Callable[[Image], NDArray[np.float32]]:
        assert self.network is not None
        return load_network(self.network)
