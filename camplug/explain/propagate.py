"""Propagation of maps over positions with similar features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from camplug.errors import CamplugError, InputError, LayerError, make_size_error
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import call_model, check_batch, check_size
from camplug.explain.fuse import Normalize, normalize_map, resize_maps
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.tensor_ops import widen
from camplug.explain.wrapper import Wrapper, is_number, set_class_form
from camplug.images.geometry import scale_size
from camplug.plug import Classes, MapSize, Selector, Tape, find_size_multiple, get_patch_size, to_grid, unwrap

CHUNK = 2**24  # similarities computed at a time
SMALLEST = 64  # pixels of a side from which on the layers with maps are the same for all sizes


def make_unit_features(features: Tensor) -> Tensor:
    r"""Return the features of every position, centred over the positions and scaled to length 1.

    .. math:: u_i = \frac{f_i - \bar f}{\lVert f_i - \bar f \rVert}

    Args:
        features: f, [N,K,h,w].

    Returns:
        Unit features [N,K,h,w]; 0 where the features equal the mean.
    """
    features = widen(features)
    return _scale_to_unit(features - features.mean((2, 3), keepdim=True))


def _scale_to_unit(features: Tensor) -> Tensor:
    """Return features [N,K,h,w] scaled to length 1 at every position, 0 where they are 0."""
    return F.normalize(features, dim=1, eps=torch.finfo(features.dtype).tiny)


def propagate_maps(maps: Tensor, features: Tensor, power: float = 2.0, reach: float | None = None) -> Tensor:
    r"""Average maps over positions, weighted by the similarity of their features and by their distance.

    .. math:: m'_i = \frac{\sum_j s_{ij} m_j}{\sum_j s_{ij}}, \quad
        s_{ij} = \mathrm{relu}\Big(\frac{f_i \cdot f_j}{\lVert f_i \rVert \lVert f_j \rVert}\Big)^p
        \exp\Big(-\frac{\lVert x_i - x_j \rVert^2}{2 r^2}\Big)

    Args:
        maps: m, maps of one image [K,h,w].
        features: f, [C,h,w].
        power: p.
        reach: r, with positions x in units of the longer side; None counts all distances alike.

    Returns:
        Maps [K,h,w].

    >>> f = torch.tensor([[[1.0, 1.0, -1.0]], [[0.0, 0.0, 0.0]]])
    >>> propagate_maps(torch.tensor([[[1.0, 0.0, 0.5]]]), f)
    tensor([[[0.5000, 0.5000, 0.5000]]])
    """
    h, w = features.shape[1:]
    unit = F.normalize(features.flatten(1), dim=0, eps=torch.finfo(features.dtype).tiny)  # [C,P]
    flat = maps.flatten(1).T.to(unit.dtype)  # [P,K]
    axes = [torch.arange(n, device=unit.device, dtype=unit.dtype) / max(h, w) for n in (h, w)]
    places = torch.cartesian_prod(*axes).view(-1, 2)  # [P,2], of row and column
    rows = []
    step = max(1, CHUNK // unit.shape[1])
    for part, own in zip(torch.split(unit.T, step), torch.split(places, step), strict=True):
        similar = (part @ unit).clamp_min(0) ** power
        if reach is not None:
            far = (own[:, None] - places).square().sum(2)
            similar = similar * torch.exp(far / (-2 * reach**2))
        total = similar.sum(1, keepdim=True)
        rows.append(similar @ flat / total.clamp_min(torch.finfo(total.dtype).tiny))
    return torch.cat(rows).T.reshape(maps.shape)


@register_wrapper("propagate")
class Propagate(Wrapper):
    """Propagate the maps of an explainer once over positions with similar features of the classifier.

    Positions of one object have similar features in the middle of a network, wherever the evidence for the class is.
    Each position gets the average of the maps over all positions, weighted by relu(cosine)^power of the features and
    by a Gaussian of the distance (`propagate_maps`). The features are those of the network's blocks at `strides`, for
    the image resized by `zoom`, and its mirror image; they are centred, scaled to length 1 (`make_unit_features`) and
    concatenated. Needs one or two more forward passes and no training. Our own method, without a paper; measured in
    docs/seeds.md.

    Args:
        explainer: any explainer.
        strides: strides of the layers in pixels of the resized image; those that the network does not have are skipped.
        zoom: factor of height and width of the image for the features.
        power: exponent of the cosines; larger values count fewer positions.
        reach: standard deviation of the Gaussian, in units of the image's longer side; None counts all distances alike.
        flip: add the features of the mirror image.
        layers: layers of the features; all with one of the strides are used.
        max_positions: maximum number of positions of the grid, which bounds memory.
        normalize: normalisation of the result: "max", "minmax" or None.

    Raises:
        LayerError: at call time, the network has no stage at any of the strides.
        ModelError: at call time, the model does not take images of the resized size.
    """

    def __init__(
        self,
        explainer: Explainer,
        strides: Sequence[int] = (8, 16),
        zoom: float = 2.0,
        power: float = 2.0,
        reach: float | None = 0.4,
        *,
        flip: bool = True,
        layers: Selector = "blocks",
        max_positions: int = 4096,
        normalize: Normalize = "max",
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        wanted = tuple(strides) if isinstance(strides, (tuple, list)) else ()
        if not wanted or not all(is_number(s) and s >= 1 for s in wanted):
            raise InputError(f"strides={strides!r}; give numbers of pixels, for instance (8, 16).")
        if not all(is_number(v) and v > 0 for v in (zoom, power, max_positions, 1 if reach is None else reach)):
            raise InputError(
                f"zoom={zoom!r}, power={power!r}, reach={reach!r}, max_positions={max_positions!r}: give numbers above "
                "0, for instance zoom=2, power=2, reach=0.4, max_positions=4096."
            )
        self.strides, self.zoom, self.power, self.reach = wanted, zoom, power, reach
        self.max_positions, self.flip, self.layers = max_positions, flip, layers
        self._names: Selector = layers  # names of the layers, found in the first run with a large image

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        sizes = check_size(batch, size)
        wanted, per_image = self.choose_classes(batch, classes)
        result = self.explainer.run_batch(batch, wanted)
        zoomed = batch.resize(scale_size(batch.size, self.zoom, find_size_multiple(self.model)))
        features = self.compute_features(zoomed)
        grid = (features.shape[2], features.shape[3])
        maps = []
        for found, own, out_size in zip(result.maps, features, sizes, strict=True):
            coarse = F.adaptive_avg_pool2d(found, grid) if len(found) else found.new_zeros(0, *grid)
            spread = propagate_maps(coarse, own, self.power, self.reach).to(found.dtype)
            maps.append(normalize_map(resize_maps(spread, out_size), self.normalize))
        return set_class_form(Result(maps, result.targets, result.logits), per_image)

    @torch.no_grad()
    def compute_features(self, batch: Batch) -> Tensor:
        """Return the unit features [N,K,h,w] of the layers at the chosen strides, on the grid of the coarsest one.

        Raises:
            LayerError: no layer has one of the strides.
            ModelError: the model does not accept images of this size.
        """
        layers = self._run_layers(batch)
        chosen = [k for k, t in enumerate(layers) if any(_has_stride(t, batch.size, s) for s in self.strides)]
        if not chosen:
            has = ", ".join(dict.fromkeys(f"{batch.size[0] / t.shape[2]:.3g}" for t in layers))
            raise LayerError(
                f"strides={self.strides!r}: the layers of this model have strides {has}; give some of these."
            )
        h, w = min((layers[k].shape[2:] for k in chosen), key=math.prod)
        shrink = min(1.0, (self.max_positions / (h * w)) ** 0.5)
        grid = (max(1, int(h * shrink)), max(1, int(w * shrink)))
        found = [make_unit_features(F.adaptive_avg_pool2d(widen(layers[k]), grid)) for k in chosen]
        if self.flip:
            mirrored = self._run_layers(batch.mirror())
            found = [
                _scale_to_unit(one + make_unit_features(F.adaptive_avg_pool2d(widen(mirrored[k].flip(-1)), grid)))
                for one, k in zip(found, chosen, strict=True)
            ]
        return torch.cat(found, 1)

    def _run_layers(self, batch: Batch) -> list[Tensor]:
        """Return the maps [N,K,h,w] of the layers.

        Raises:
            ModelError: the model does not accept images of this size.
        """
        model = unwrap(self.model)
        is_large = min(batch.size) >= SMALLEST
        try:
            with Tape(
                self.model, self._names if is_large else self.layers, forward_only=True, image=batch.where
            ) as tape:
                call_model(self.model, batch)
                self._names = tape.names if is_large else self._names
                last = {layer.name: (layer, activation) for layer, activation in tape.captures}
                return [
                    to_grid(a, batch.size, get_patch_size(model), str(layer), images=len(batch))
                    for layer, a in last.values()
                ]
        except CamplugError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            raise make_size_error(error, batch.size, "what zoom= asks for; give zoom=1") from error


def _has_stride(features: Tensor, size: tuple[int, int], stride: int) -> bool:
    """Return whether features [N,K,h,w] have one position per `stride` pixels of images of a size, up to rounding."""
    return all(abs(n - side / stride) < 1 for n, side in zip(features.shape[2:], size, strict=True))
