"""Feature maps of any classifier, for networks that learn on top of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import camplug
from camplug.errors import InputError, LayerError, ModelError, make_size_error
from camplug.images.preprocess import Preprocess
from camplug.models.preprocess import find_preprocess
from camplug.plug import Layer, find_first_weight, send_to, unwrap
from camplug.plug.layers import Selector
from camplug.wsss.store.identity import hash_weights

MULTIPLE = 32  # multiples of this keep the maps of all resolutions aligned


def pad_to_multiple(x: Tensor) -> Tensor:
    """Pad images [N,C,H,W] at the right and the bottom to multiples of 32, repeating the edge."""
    h, w = x.shape[-2:]
    return F.pad(x, (0, -w % MULTIPLE, 0, -h % MULTIPLE), mode="replicate")


class Backbone:
    """Outputs of chosen layers of a frozen classifier, finest first.

    This is not a module, so networks that hold it neither train nor store it.

    Args:
        model: classifier, not changed.
        layers: layers as for `camplug.Tape`; "stages" is the last map of every resolution.
        preprocess: normalisation of photographs; None uses the model's own.

    Attributes:
        names: names of the layers, finest first.
        channels: channels of their outputs.
        strides: image pixels per position.

    Raises:
        LayerError: the layers do not exist.
        ModelError: the layers return no feature maps [N,C,h,w], or only for one image size.
    """

    def __init__(self, model: nn.Module, layers: Selector = "stages", preprocess: Preprocess | None = None) -> None:
        self.model = unwrap(model)
        if preprocess is None:
            preprocess = find_preprocess(self.model, warn=False)
        self.preprocess = replace(preprocess, long_side=None)
        side = 4 * MULTIPLE
        weight = find_first_weight(self.model)
        example = torch.zeros(1, 3, side, side)
        maps = self._capture_maps(example if weight is None else example.to(weight), layers)
        maps.sort(key=lambda one: -one[1].shape[-1])
        self._calls = [(layer.name, layer.call) for layer, _ in maps]
        self.names = [str(layer) for layer, _ in maps]
        self.channels = [a.shape[1] for _, a in maps]
        self.strides = [side / a.shape[-1] for _, a in maps]

    def _capture_maps(self, x: Tensor, layers: Selector) -> list[tuple[Layer, Tensor]]:
        try:
            with camplug.Tape(self.model, layers, forward_only=True) as tape:
                self.model(x)
                maps = list(tape.captures)
        except LayerError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:  # a model of one input size may raise anything
            raise make_size_error(error, (x.shape[2], x.shape[3])) from error
        flat = next((f"{str(layer)!r} ({list(a.shape)})" for layer, a in maps if a.ndim != 4), None)
        if flat is not None or not maps:
            raise ModelError(
                f"feature maps [N,C,h,w] are needed, but {flat or 'no layer'} was found; name convolution layers."
            )
        return maps

    @torch.no_grad()
    def __call__(self, x: Tensor) -> list[Tensor]:
        """Compute the feature maps of normalised images [N,3,H,W], finest first, in their dtype and on their device.

        Sides are padded to multiples of 32 at the right and the bottom by repeating the edge, so that a position of
        stride s is s pixels wide at any image size. The maps include the padding.
        """
        x = pad_to_multiple(x)
        weight = find_first_weight(self.model)
        if weight is not None and weight.device != x.device:
            self.model.to(x.device)  # follows the network that holds this
        # by name, since "stages" could select other layers for small images
        names = list(dict.fromkeys(name for name, _ in self._calls))
        found = {
            (layer.name, layer.call): a
            for layer, a in self._capture_maps(x if weight is None else x.to(weight.dtype), names)
        }
        return [found[call].to(x.dtype) for call in self._calls]

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalise images [...,3,H,W] in 0 to 255 for the model."""
        return self.preprocess.normalize(pixels)

    def read(self, photo: NDArray[np.uint8], device: torch.device | str) -> Tensor:
        """Convert a photograph, RGB uint8 [H,W,3], to the input of the model, [1,3,H,W] on the device.

        Raises:
            InputError: another shape or dtype.
        """
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[-1] != 3 or not photo.size:
            raise InputError(f"the photograph is {photo.dtype} {list(photo.shape)}; give RGB uint8 [H,W,3].")
        return self.normalize(send_to(torch.from_numpy(np.array(photo)), torch.device(device)).permute(2, 0, 1))[None]

    def fingerprint(self) -> str:
        """Return the first 16 digits of the SHA-256 of the model's weights, which heads are bound to."""
        return hash_weights(self.model)
