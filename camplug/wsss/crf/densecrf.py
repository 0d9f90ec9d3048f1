"""The fully connected CRF of a photograph. Krähenbühl and Koltun, NIPS 2011."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camplug.errors import InputError
from camplug.wsss.crf.kernels import make_bilateral_kernel, make_gaussian_kernel
from camplug.wsss.crf.lattice import Floats
from camplug.wsss.crf.meanfield import run_mean_field
from camplug.wsss.crf.settings import CRFSettings, settings_of
from camplug.wsss.crf.unary import unary_from_labels

if TYPE_CHECKING:
    import torch

    from camplug.wsss.crf.tensors import TensorField

Backend: TypeAlias = Literal["numpy", "torch"]


class DenseCRF:
    """Mean-field inference in the fully connected CRF of one photograph (eq. 2 and 3, algorithm 1 of the paper).

    From Q = softmax(-U) on, every iteration sets

        Q = softmax(-U + sum_m w_m N_m K_m N_m Q),  K_m(i, j) = exp(-|f_i - f_j|^2 / 2),  N_m = diag(1 / sqrt(K_m 1))

    with f = (x / sxy, y / sxy) for the smoothness kernel and (x / sxy, y / sxy, rgb / srgb) for the appearance kernel.
    All as in pydensecrf, for which the published settings were chosen: sums include i = j, compatibility w_m is gained
    for the same label, and the permutohedral lattice stands for K_m.

    The bilateral lattice is built once, here: several label images of one photograph share it. The Gaussian lattice
    depends on the size alone and is kept for the next photographs of that size. An object may be used by several
    threads.

    Args:
        photo: the raw RGB photograph, a PIL image or a uint8 array [H, W, 3]. Nothing that was normalised: cast back to
            uint8, values below 0 wrap around, and the kernel sees edges where there are none.
        settings: a name in `PRESETS`, or `CRFSettings`.
        backend: "numpy", on the CPU, or "torch", on any device.
        device: of the torch backend; the CPU if left out.

    Raises:
        InputError: a photograph of another kind, unknown settings, backend or device, or standard deviations so small
            that the lattice cannot be numbered.

    >>> photo = np.zeros((2, 4, 3), np.uint8)
    >>> photo[:, 2:] = 200
    >>> unary = unary_from_labels(np.array([[0, 0, 1, 1], [0, 1, 1, 1]]), classes=2)
    >>> DenseCRF(photo, "irn").refine(unary).argmax(0)
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]])
    """

    def __init__(
        self,
        photo: Any,
        settings: str | CRFSettings = "irn",
        *,
        backend: Backend = "numpy",
        device: str | torch.device | None = None,
    ) -> None:
        if backend not in ("numpy", "torch"):
            raise InputError(f"backend={backend!r}: give 'numpy' or 'torch'.")
        if device is not None and backend == "numpy":
            raise InputError(f"device={str(device)!r} is for backend='torch'; numpy runs on the CPU.")
        self.settings, pixels = settings_of(settings), _check_pixels(photo)
        self.size: tuple[int, int] = (pixels.shape[0], pixels.shape[1])
        (near, smooth), (far, colours, alike) = self.settings.gaussian, self.settings.bilateral
        kernels = []
        if smooth:
            kernels.append((smooth, make_gaussian_kernel(*self.size, near)))
        if alike:
            kernels.append((alike, make_bilateral_kernel(pixels, far, colours)))
        self._lattices = [kernel.lattice.multiply(compat) for compat, kernel in kernels]
        self._ones = np.zeros(pixels.shape[0] * pixels.shape[1], np.float32)
        for compat, kernel in kernels:
            self._ones += np.float32(compat) * kernel.ones
        self._field: TensorField | None = None
        if backend == "torch":
            from camplug.wsss.crf.tensors import TensorField

            self._field = TensorField(self._lattices, device)

    def refine(self, unary: ArrayLike) -> Floats:
        """The marginals Q after the last iteration.

        Args:
            unary: [K, H, W] energies, -log p; a number added to all classes of a pixel changes nothing.

        Returns:
            [K, H, W] float32, 1 in total at each pixel. For K = 1 all ones, at once.

        Raises:
            InputError: a unary of another shape or type, or not finite.
        """
        energies = self._check_unary(unary)
        if len(energies) == 1:
            return np.ones_like(energies)
        planes = energies.reshape(len(energies), -1)
        planes = planes - planes.min(0)
        if self._field is None:
            marginals = run_mean_field(self._lattices, self._ones, planes, self.settings.iterations)
        else:
            marginals = self._field.run_mean_field(planes, self.settings.iterations)
        return marginals.reshape(energies.shape)

    def _check_unary(self, unary: ArrayLike) -> Floats:
        given: NDArray[Any] = np.asarray(unary)
        if given.ndim != 3 or len(given) == 0 or given.shape[1:] != self.size or given.dtype.kind not in "fiu":
            raise InputError(
                f"the unary is {given.dtype} {list(given.shape)}; give floats [K, {self.size[0]}, {self.size[1]}], a "
                "plane for each class, of the photo's size."
            )
        with np.errstate(over="ignore"):  # infinite then
            energies = given.astype(np.float32)
        if not np.isfinite(energies).all():
            raise InputError("the unary holds nan or infinite values; clip probabilities above 0 before the logarithm.")
        return energies


def refine_labels(
    photo: Any, labels: ArrayLike, classes: int, certainty: float = 0.7, unsure: int | None = 255
) -> NDArray[np.int64]:
    """A label image drawn to the edges of its photograph: argmax of Q for `unary_from_labels`.

    Args:
        photo: a `DenseCRF`, or a photograph, which means `DenseCRF(photo, "irn")`.
        labels: [H, W] integers, 0 to K-1, or `unsure`.
        classes: K.
        certainty: the probability that a label is right.
        unsure: pixels of this value may be any class; None: there is no such value.

    Returns:
        [H, W] int64, 0 to K-1.

    Raises:
        InputError: as `DenseCRF` and `unary_from_labels`.
    """
    unary = unary_from_labels(labels, classes, certainty, unsure)
    crf = photo if isinstance(photo, DenseCRF) else DenseCRF(photo)
    refined: NDArray[np.int64] = crf.refine(unary).argmax(0)
    return refined


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
