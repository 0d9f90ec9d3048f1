"""Feature maps of any classifier, read through the plug, for networks that learn on top of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import camplug
from camplug.errors import InputError, LayerError, ModelError, make_size_error
from camplug.explain.preprocess import Preprocess, find_preprocess
from camplug.plug import Layer, find_first_weight, send_to, unwrap
from camplug.plug.layers import Selector
from camplug.wsss.store.identity import hash_weights
from camplug.wsss.train.device import per_channel

MULTIPLE = 32  # sides that are multiples of this keep the maps of all resolutions aligned


def filled(x: Tensor) -> Tensor:
    """Images [N,C,H,W] whose sides are multiples of 32: filled up at the right and the bottom by repeating the edge."""
    h, w = x.shape[-2:]
    return F.pad(x, (0, -w % MULTIPLE, 0, -h % MULTIPLE), mode="replicate")


def normalized(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images [...,3,H,W] with values in 0 to 255, with mean and deviation of values in 0 to 1 taken out."""
    middle, spread = (per_channel(tuple(v), pixels.device) for v in (mean, std))
    return (pixels.float() / 255 - middle) / spread


class Backbone:
    """The outputs of chosen layers of a frozen classifier, coarse ones last.

    It is no module, so that a network that holds it neither trains nor stores it.

    Args:
        model: a classifier; it is left as it is.
        layers: as for `camplug.Tape`; "stages" is the last map of every resolution.
        preprocess: how photographs are normalised, if the model does not say it itself.

    Attributes:
        names: of the layers, finest first.
        channels: of their outputs.
        strides: how many pixels of the image one position is wide.

    Raises:
        LayerError: there are no such layers.
        ModelError: the layers put out no feature maps [N,C,h,w], or do so for one image size only.
    """

    def __init__(self, model: nn.Module, layers: Selector = "stages", preprocess: Preprocess | None = None) -> None:
        self.model = unwrap(model)
        if preprocess is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # ImageNet's mean and deviation are the usual guess
                found = find_preprocess(self.model)
            preprocess = found if isinstance(found, Preprocess) else Preprocess()
        self.preprocess = replace(preprocess, long_side=None)
        side = 4 * MULTIPLE
        weight = find_first_weight(self.model)
        example = torch.zeros(1, 3, side, side)
        maps = self._taped(example if weight is None else example.to(weight), layers)
        maps.sort(key=lambda one: -one[1].shape[-1])
        self._calls = [(layer.name, layer.call) for layer, _ in maps]
        self.names = [str(layer) for layer, _ in maps]
        self.channels = [a.shape[1] for _, a in maps]
        self.strides = [side / a.shape[-1] for _, a in maps]

    def _taped(self, x: Tensor, layers: Selector) -> list[tuple[Layer, Tensor]]:
        try:
            with camplug.Tape(self.model, layers, forward_only=True) as tape:
                self.model(x)
                maps = list(tape.captures)
        except LayerError:  # tells a wrong name itself
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
        """The feature maps of normalised images [N,3,H,W], finest first, in their number format and on their device.

        Sides that are no multiple of 32 are filled up by repeating the edge, at the right and at the bottom, so that a
        position of stride s is s pixels wide at any image size; what lies beyond the image stays in the maps.
        """
        x = filled(x)
        weight = find_first_weight(self.model)
        if weight is not None and weight.device != x.device:
            self.model.to(x.device)  # it follows the network that holds it
        # by name: on a small image "stages" would find others, since several maps have one position there
        names = list(dict.fromkeys(name for name, _ in self._calls))
        found = {
            (layer.name, layer.call): a for layer, a in self._taped(x if weight is None else x.to(weight.dtype), names)
        }
        return [found[call].to(x.dtype) for call in self._calls]

    def normalized(self, pixels: Tensor) -> Tensor:
        """Images [...,3,H,W] with values in 0 to 255 as the model reads them."""
        return normalized(pixels, self.preprocess.mean, self.preprocess.std)

    def read(self, photo: NDArray[np.uint8], device: torch.device | str) -> Tensor:
        """A photograph, RGB uint8 [H,W,3], as the model reads it: [1,3,H,W] on the device.

        Raises:
            InputError: no such photograph.
        """
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[-1] != 3 or not photo.size:
            raise InputError(f"the photograph is {photo.dtype} {list(photo.shape)}; give RGB uint8 [H,W,3].")
        return self.normalized(send_to(torch.from_numpy(np.array(photo)), torch.device(device)).permute(2, 0, 1))[None]

    def fingerprint(self) -> str:
        """The first 16 digits of a SHA-256 of the model's weights, so that heads are not put on another one."""
        return hash_weights(self.model)
