"""Fully connected CRF of a photograph. Krähenbühl and Koltun, NIPS 2011."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from camplug.errors import InputError
from camplug.plug import resolve_device, send_to
from camplug.wsss.crf.kernels import make_bilateral_kernel, make_gaussian_kernel
from camplug.wsss.crf.lattice import Floats, Lattice
from camplug.wsss.crf.meanfield import run_mean_field
from camplug.wsss.crf.settings import CERTAINTY, CRFSettings, resolve_settings
from camplug.wsss.crf.tensors import run_mean_field_on_device
from camplug.wsss.crf.unary import make_unary_from_labels

Backend: TypeAlias = Literal["numpy", "torch"]


class DenseCRF:
    """Mean-field inference in the fully connected CRF of one photograph (eq. 2 and 3, algorithm 1 of the paper).

    Starting from Q = softmax(-U), every iteration sets

        Q = softmax(-U + sum_m w_m N_m K_m N_m Q),  K_m(i, j) = exp(-|f_i - f_j|^2 / 2),  N_m = diag(1 / sqrt(K_m 1))

    with f = (x / sxy, y / sxy) for the smoothness kernel and (x / sxy, y / sxy, rgb / srgb) for the appearance kernel.
    Conventions are those of pydensecrf, for which the published settings were chosen: sums include i = j, the
    compatibility w_m rewards equal labels, and the permutohedral lattice approximates K_m.

    The bilateral lattice is built once, in the constructor, and shared by all label images of the photograph. Gaussian
    lattices depend on the size only and are cached. Objects are thread-safe.

    Args:
        photo: raw RGB photograph, a PIL image or a uint8 array [H, W, 3]. Normalised pixels that were cast back to
            uint8 are wrong: values below 0 wrap around and look like edges.
        settings: name in `PRESETS`, or `CRFSettings`.
        backend: "numpy", on the CPU, or "torch", on any device. By default numpy for the CPU, else torch.
        device: device of the lattices and of the inference; by default the CPU.

    Raises:
        InputError: the photograph is of another kind, settings, backend or device are unknown, or standard deviations
            are too small for the lattice.

    >>> photo = np.zeros((2, 4, 3), np.uint8)
    >>> photo[:, 2:] = 200
    >>> unary = make_unary_from_labels(np.array([[0, 0, 1, 1], [0, 1, 1, 1]]), classes=2)
    >>> DenseCRF(photo, "irn").refine(unary).argmax(0)
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]])
    """

    def __init__(
        self,
        photo: Any,
        settings: str | CRFSettings = "irn",
        *,
        backend: Backend | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if backend not in (None, "numpy", "torch"):
            raise InputError(f"backend={backend!r}: give 'numpy' or 'torch'.")
        if backend == "numpy" and device is not None and not str(device).startswith("cpu"):
            raise InputError(f"device={str(device)!r} is for backend='torch'; numpy runs on the CPU.")
        where = resolve_device(device)
        self.settings, pixels = resolve_settings(settings), _check_pixels(photo)
        self.size: tuple[int, int] = (pixels.shape[0], pixels.shape[1])
        self._in_numpy = backend == "numpy" or (backend is None and where.type == "cpu")
        self._lattices, self._ones = _make_lattices([pixels], self.settings, where)

    def refine(self, unary: ArrayLike) -> Floats:
        """Compute the marginals Q after the last iteration.

        Args:
            unary: energies [K, H, W], -log p; adding a number to all classes of a pixel has no effect.

        Returns:
            Marginals [K, H, W] float32 that sum to 1 at each pixel; all ones for K = 1.

        Raises:
            InputError: the unary has another shape or type, or is not finite.
        """
        energies = _check_unary(unary, self.size)
        if len(energies) == 1:
            return np.ones_like(energies)
        planes = energies.reshape(len(energies), -1)
        planes = planes - planes.min(0)
        if self._in_numpy:
            marginals = run_mean_field(self._lattices, self._ones.numpy(), planes, self.settings.iterations)
        else:
            there = send_to(torch.from_numpy(planes), self._ones.device)
            marginals = run_mean_field_on_device(self._lattices, there, self.settings.iterations).cpu().numpy()
        return marginals.reshape(energies.shape)


def refine_photographs(
    photos: Sequence[Any],
    unaries: Sequence[ArrayLike],
    settings: str | CRFSettings = "irn",
    *,
    device: str | torch.device | None = None,
) -> list[Floats]:
    """Compute the marginals of several photographs, of any sizes, in one mean-field inference on a device.

    One lattice holds the pixels of all photographs, which do not meet in it; the results are those of `DenseCRF` for
    each. On a GPU this saves the time between its small kernels; a CPU is as fast with one photograph after another.

    Args:
        photos: photographs; see `DenseCRF`.
        unaries: energies [K, H, W] of each; K may differ.
        settings: name in `PRESETS`, or `CRFSettings`.
        device: device; by default the CPU.

    Returns:
        Marginals [K, H, W] float32 of each photograph.

    Raises:
        InputError: see `DenseCRF` and `DenseCRF.refine`; the numbers of photographs and unaries differ.

    >>> photos = [np.zeros((1, 2, 3), np.uint8), np.full((2, 2, 3), 200, np.uint8)]
    >>> unaries = [np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.zeros((3, 2, 2))]
    >>> [q.shape for q in refine_photographs(photos, unaries)]
    [(2, 1, 2), (3, 2, 2)]
    """
    if len(photos) != len(unaries):
        raise InputError(f"{len(photos)} photographs have {len(unaries)} unaries; give one for each photograph.")
    if not len(photos):
        return []
    resolved, where = resolve_settings(settings), resolve_device(device)
    pixels = [_check_pixels(photo) for photo in photos]
    energies = [_check_unary(u, p.shape[:2]) for u, p in zip(unaries, pixels, strict=True)]
    counts = [one[0].size for one in energies]
    columns = np.full((max(map(len, energies)), sum(counts)), np.inf, np.float32)  # marginals of missing classes are 0
    for one, end, count in zip(energies, np.cumsum(counts), counts, strict=True):
        planes = one.reshape(len(one), -1)
        columns[: len(one), end - count : end] = planes - planes.min(0)
    lattices, _ = _make_lattices(pixels, resolved, where)
    marginals = run_mean_field_on_device(lattices, send_to(torch.from_numpy(columns), where), resolved.iterations)
    parts = torch.split(marginals.cpu(), counts, 1)
    return [part[: len(one)].numpy().reshape(one.shape) for part, one in zip(parts, energies, strict=True)]


def refine_labels(
    photo: Any, labels: ArrayLike, classes: int, certainty: float = CERTAINTY, unsure: int | None = 255
) -> NDArray[np.int64]:
    """Refine a label image: argmax of Q for `make_unary_from_labels`.

    Args:
        photo: `DenseCRF`, or a photograph for `DenseCRF(photo, "irn")`.
        labels: integers [H, W], 0 to K-1, or `unsure`.
        classes: K.
        certainty: probability that a label is right.
        unsure: value of pixels without a label; None: there is no such value.

    Returns:
        Labels [H, W] int64, 0 to K-1.

    Raises:
        InputError: see `DenseCRF` and `make_unary_from_labels`.
    """
    unary = make_unary_from_labels(labels, classes, certainty, unsure)
    crf = photo if isinstance(photo, DenseCRF) else DenseCRF(photo)
    refined: NDArray[np.int64] = crf.refine(unary).argmax(0)
    return refined


def _make_lattices(
    photos: Sequence[NDArray[np.uint8]], settings: CRFSettings, device: torch.device
) -> tuple[list[Lattice], Tensor]:
    """Make the kernels times their compatibilities, and the sum of their responses to a plane of ones, [P]."""
    (near, smooth), (*appearance, alike) = settings.gaussian, settings.bilateral
    kernels = []
    if smooth:
        kernels.append((smooth, make_gaussian_kernel([(one.shape[0], one.shape[1]) for one in photos], near, device)))
    if alike:
        there = [send_to(torch.from_numpy(np.array(one)), device) for one in photos]
        kernels.append((alike, make_bilateral_kernel(there, *appearance)))
    ones = torch.zeros(sum(one.shape[0] * one.shape[1] for one in photos), device=device)
    for compat, kernel in kernels:
        ones.add_(kernel.ones, alpha=compat)
    return [kernel.lattice.multiply(compat) for compat, kernel in kernels], ones


def _check_unary(unary: ArrayLike, size: tuple[int, ...]) -> Floats:
    """Return the energies [K, H, W] in float32."""
    given: NDArray[Any] = np.asarray(unary)
    if given.ndim != 3 or len(given) == 0 or given.shape[1:] != size or given.dtype.kind not in "fiu":
        raise InputError(
            f"the unary is {given.dtype} {list(given.shape)}; give floats [K, {size[0]}, {size[1]}], a plane for each "
            "class, of the photo's size."
        )
    with np.errstate(over="ignore"):  # checked below
        energies = given.astype(np.float32)
    if not np.isfinite(energies).all():
        raise InputError("the unary holds nan or infinite values; clip probabilities above 0 before the logarithm.")
    return energies


def _check_pixels(photo: Any) -> NDArray[np.uint8]:
    from PIL.Image import Image

    if isinstance(photo, Image) and photo.mode != "RGB":
        raise InputError(f"the photo is a PIL image of mode {photo.mode}; give photo.convert('RGB').")
    if not isinstance(photo, (Image, np.ndarray)):
        raise InputError(f"the photo is of type {type(photo).__name__}; give a PIL image or a uint8 array [H, W, 3].")
    pixels = np.asarray(photo)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            f"the photo is {pixels.dtype} {list(pixels.shape)}; give the raw RGB photo, uint8 [H, W, 3]: its colours "
            "count as 0..255, and values that were normalised wrap around when they are cast to uint8."
        )
    return pixels
