"""Propagation of maps over positions with similar features."""

from __future__ import annotations

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
from camplug.plug import Classes, Selector, Size, Tape, get_patch_size, to_grid, unwrap

CHUNK = 2**24  # similarities computed at a time


def make_unit_features(features: Tensor) -> Tensor:
    r"""Return the features of every position, centred over the positions and scaled to length 1.

    .. math:: u_i = \frac{f_i - \bar f}{\lVert f_i - \bar f \rVert}

    Args:
        features: f, [N,K,h,w].

    Returns:
        Unit features [N,K,h,w]; 0 where the features equal the mean.
    """
    features = widen(features)
    return F.normalize(features - features.mean((2, 3), keepdim=True), dim=1, eps=torch.finfo(features.dtype).tiny)


def propagate_maps(maps: Tensor, features: Tensor, power: float = 3.0) -> Tensor:
    r"""Average maps over positions, weighted by the similarity of their features.

    .. math:: m'_i = \frac{\sum_j s_{ij} m_j}{\sum_j s_{ij}}, \quad
        s_{ij} = \mathrm{relu}\Big(\frac{f_i \cdot f_j}{\lVert f_i \rVert \lVert f_j \rVert}\Big)^p

    Args:
        maps: m, maps of one image [K,h,w].
        features: f, [C,h,w].
        power: p.

    Returns:
        Maps [K,h,w].

    >>> f = torch.tensor([[[1.0, 1.0, -1.0]], [[0.0, 0.0, 0.0]]])
    >>> propagate_maps(torch.tensor([[[1.0, 0.0, 0.5]]]), f)
    tensor([[[0.5000, 0.5000, 0.5000]]])
    """
    unit = F.normalize(features.flatten(1), dim=0, eps=torch.finfo(features.dtype).tiny)  # [C,P]
    flat = maps.flatten(1).T.to(unit.dtype)  # [P,K]
    rows = []
    for part in torch.split(unit.T, max(1, CHUNK // unit.shape[1])):
        similar = (part @ unit).clamp_min(0) ** power
        total = similar.sum(1, keepdim=True)
        rows.append(similar @ flat / total.clamp_min(torch.finfo(total.dtype).tiny))
    return torch.cat(rows).T.reshape(maps.shape)


@register_wrapper("propagate")
class Propagate(Wrapper):
    """Propagate the maps of an explainer once over positions with similar features of the classifier.

    Positions of one object have similar features in the middle of a network, wherever the evidence for the class is.
    Each position gets the average of the maps over all positions, weighted by relu(cosine)^power of the features
    (`propagate_maps`). The features are those of the network's stages at `strides`, for the image resized by `zoom`;
    they are centred, scaled to length 1 (`make_unit_features`) and concatenated. Needs one more forward pass and no
    training. Our own method, without a paper; measured in docs/seeds.md.

    Args:
        explainer: any explainer.
        strides: strides of the layers in pixels of the resized image; those that the network does not have are skipped.
        zoom: factor of height and width of the image for the features.
        power: exponent of the cosines; larger values count fewer positions.
        layers: layers of the features; the last of those with equal stride is used.
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
        power: float = 3.0,
        *,
        layers: Selector = "stages",
        max_positions: int = 4096,
        normalize: Normalize = "max",
    ) -> None:
        super().__init__(explainer, normalize=normalize)
        wanted = tuple(strides) if isinstance(strides, (tuple, list)) else ()
        if not wanted or not all(is_number(s) and s >= 1 for s in wanted):
            raise InputError(f"strides={strides!r}; give numbers of pixels, for instance (8, 16).")
        if not all(is_number(v) and v > 0 for v in (zoom, power, max_positions)):
            raise InputError(
                f"zoom={zoom!r}, power={power!r}, max_positions={max_positions!r}: give numbers above 0, for instance "
                "zoom=2, power=3, max_positions=4096."
            )
        self.strides, self.zoom, self.power, self.max_positions = wanted, zoom, power, max_positions
        self.layers = layers
        self._names: list[str] | None = None  # names of the layers, found in the first run

    @override
    def run(self, x: Tensor, classes: Classes, size: Size | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        out_size = check_size(batch, size)
        wanted, per_image = self.choose_classes(batch, classes)
        result = self.explainer.run_batch(batch, wanted)
        height, width = batch.size
        zoomed = batch.resize((max(1, round(height * self.zoom)), max(1, round(width * self.zoom))))
        features = self.compute_features(zoomed)
        grid = (features.shape[2], features.shape[3])
        maps = []
        for found, own in zip(result.maps, features, strict=True):
            coarse = F.adaptive_avg_pool2d(found, grid) if len(found) else found.new_zeros(0, *grid)
            spread = propagate_maps(coarse, own, self.power).to(found.dtype)
            maps.append(normalize_map(resize_maps(spread, out_size), self.normalize))
        return set_class_form(Result(maps, result.targets, result.logits), per_image)

    @torch.no_grad()
    def compute_features(self, batch: Batch) -> Tensor:
        """Return the unit features [N,K,h,w] of the stages at the chosen strides, on the grid of the coarsest stage.

        Raises:
            LayerError: no stage has one of the strides.
            ModelError: the model does not accept images of this size.
        """
        try:
            stages = self._run_stages(batch)
        except CamplugError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            raise make_size_error(error, batch.size, "what zoom= asks for; give zoom=1") from error
        found = {s: t for t in stages for s in self.strides if _has_stride(t, batch.size, s)}
        if not found:
            has = ", ".join(f"{batch.size[0] / t.shape[2]:.3g}" for t in stages)
            raise LayerError(
                f"strides={self.strides!r}: the stages of this model have strides {has}; give some of these."
            )
        chosen = [found[s] for s in sorted(found)]
        h, w = chosen[-1].shape[2:]
        shrink = min(1.0, (self.max_positions / (h * w)) ** 0.5)
        grid = (max(1, int(h * shrink)), max(1, int(w * shrink)))
        return torch.cat([make_unit_features(F.adaptive_avg_pool2d(widen(t), grid)) for t in chosen], 1)

    def _run_stages(self, batch: Batch) -> list[Tensor]:
        """Return the last map [N,K,h,w] of every resolution."""
        model = unwrap(self.model)
        with Tape(self.model, self._names or self.layers, forward_only=True, image=batch.where) as tape:
            call_model(self.model, batch)
            self._names = tape.names
            last = {layer.name: (layer, activation) for layer, activation in tape.captures}
            return [
                to_grid(a, batch.size, get_patch_size(model), str(layer), images=len(batch))
                for layer, a in last.values()
            ]


def _has_stride(features: Tensor, size: tuple[int, int], stride: int) -> bool:
    """Return whether features [N,K,h,w] have one position per `stride` pixels of images of a size, up to rounding."""
    return all(abs(n - side / stride) < 1 for n, side in zip(features.shape[2:], size, strict=True))
