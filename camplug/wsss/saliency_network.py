"""Saliency networks from files: TorchScript, torch.export, ONNX, and DeepLab trained by camplug."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from camplug.errors import InputError
from camplug.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from camplug.options import split_options
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.identity import hash_file
from camplug.wsss.store.jobs import Mismatch, Report, make_results
from camplug.wsss.store.picture_folder import PictureFolder

SUFFIXES = (".onnx", ".pt", ".pt2", ".pth", ".ts", ".torchscript", ".ckpt")
OPTIONS = ("side", "mean", "std", "output")
SIDE = 224  # side of the input of a network that does not tell it

Run = Callable[[Tensor], Any]


@dataclass(frozen=True)
class NetworkSource:
    """File of a saliency network, and how it reads photographs.

    Args:
        path: TorchScript, a program of torch.export, ONNX, or a file of `camplug train deeplab`.
        side: side in pixels of the square that photographs are resized to; None uses that of the file, or else 224.
        mean, std: channel means and standard deviations of photographs in [0, 1].
        output: "probabilities", or "logits", to which a sigmoid is applied.

    Raises:
        InputError: an option is out of range.
    """

    path: Path
    side: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    output: str = "probabilities"

    def __post_init__(self) -> None:
        if self.side is not None and self.side < 1:
            raise InputError(f"side={self.side}; give a number of pixels of at least 1.")
        if self.output not in ("probabilities", "logits"):
            raise InputError(f"output={self.output!r}; allowed are probabilities, logits.")
        if not all(value > 0 for value in self.std):
            raise InputError(f"std={self.std}; give numbers above 0.")

    def describe(self) -> dict[str, Any]:
        """Return the content of the file and the options as plain data."""
        options = {"side": self.side, "mean": list(self.mean), "std": list(self.std), "output": self.output}
        return {"network": hash_file(self.path), **options}


def parse_network(text: str) -> NetworkSource | None:
    """Parse the name of a network's file with options behind "?"; None for any other text.

    Args:
        text: for instance "saliency.onnx?side=320&mean=0.5,0.5,0.5&std=0.5,0.5,0.5&output=logits".

    Raises:
        InputError: the file is missing, or an option is unknown or out of range.

    >>> parse_network("contrast")
    """
    place, given = split_options(text, "?side=320&output=logits")
    path = Path(place).expanduser()
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        return None
    if not path.is_file():
        raise InputError(f"there is no saliency network {place!r}; give the path of its file.")
    unknown = [name for name in given if name not in OPTIONS]
    if unknown:
        raise InputError(f"{text!r}: there is no option {unknown[0]!r}; the options are {', '.join(OPTIONS)}.")
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        options |= {name: tuple(map(float, options[name].split(","))) for name in ("mean", "std") if name in options}
        options |= {"side": int(options["side"])} if "side" in options else {}
    except ValueError as error:
        raise InputError(f"{text!r}: {error}; give numbers such as ?side=320&mean=0.5,0.5,0.5.") from None
    return NetworkSource(path, **options)


def load_network(source: NetworkSource) -> Callable[[Image], NDArray[np.float32]]:
    """Load a saliency network as a function from a photograph to its map [h,w] in [0, 1], of any size.

    Raises:
        InputError: the file cannot be read, or is of another kind; onnxruntime is not installed.
    """
    if source.path.suffix.lower() == ".onnx":
        run, side = _load_onnx(source.path)
    elif source.path.suffix.lower() == ".pt2":
        run, side = _load_program(source.path)
    elif _is_torchscript(source.path):
        run, side = _load_torchscript(source.path), None
    else:
        return _load_deeplab(source.path)
    side = source.side or side or SIDE
    reads = Preprocess((side, side), source.mean, source.std, keep_aspect=False)
    return lambda photo: _compute_map(run, reads, source, photo)


class SaliencyFolder(PictureFolder):
    """Folder of saliency maps, grey PNGs of 0 to 255."""

    what = "saliency maps"


def write_saliency(
    source: NetworkSource,
    data: SegmentationData,
    folder: SaliencyFolder,
    *,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Write the saliency maps of all images that have none yet; see `camplug.wsss.store.jobs.make_results`.

    Args:
        source: network.
        data: photographs.
        folder: prepared folder; see `NetworkSource.describe` for its settings.
        shard: (r, n): every n-th image, starting from the r-th.
        step: function called after every image.

    Raises:
        InputError: see `load_network`.
        Mismatch: the network does not take the photographs, or does not give one map of numbers in [0, 1].
    """
    network = load_network(source)

    def make(photo: Image) -> NDArray[np.uint8]:
        return np.rint(255 * network(photo)).astype(np.uint8)

    return make_results(
        data,
        folder,
        make,
        read=data.photo,
        get_digests=lambda i: {"photograph": data.photo_digest(i)},
        shard=shard,
        step=step,
    )


def _compute_map(run: Run, reads: Preprocess, source: NetworkSource, photo: Image) -> NDArray[np.float32]:
    """Run a network on a photograph and check its map."""
    name, x = str(source.path), reads(photo)[0][None]
    try:
        with torch.no_grad():
            found = run(x)
    except Exception as error:  # TorchScript, torch.export and onnxruntime raise errors of their own kinds
        first = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise Mismatch(
            f"the saliency network {name!r} cannot take images {list(x.shape)} ({first}); give its size: ?side=320."
        ) from None
    while isinstance(found, (tuple, list)) and found:  # the first of several outputs is the final map
        found = found[0]
    if not isinstance(found, (Tensor, np.ndarray)) or sum(side > 1 for side in found.shape) > 2 or found.ndim < 2:
        got = list(found.shape) if isinstance(found, (Tensor, np.ndarray)) else type(found).__name__
        raise Mismatch(f"the saliency network {name!r} gives {got}; its first output has to be one map [1,1,h,w].")
    values = torch.as_tensor(found).float().reshape(found.shape[-2:])
    if source.output == "logits":
        values = values.sigmoid()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise Mismatch(
            f"the saliency network {name!r} gives values from {float(values.min()):.3g} to {float(values.max()):.3g}, "
            f"which are no probabilities; if they are logits, write {source.path.name}?output=logits."
        )
    return values.numpy()


def _load_onnx(path: Path) -> tuple[Run, int | None]:
    """Load an ONNX file and the side of its input, None if it is not fixed."""
    try:
        runtime = import_module("onnxruntime")
    except ImportError:
        raise InputError(
            f"{str(path)!r} needs the package onnxruntime; install it with: pip install onnxruntime."
        ) from None
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises errors of its own kinds
        raise InputError(f"the saliency network {str(path)!r} cannot be read ({error}).") from None
    read = session.get_inputs()[0]
    side = read.shape[-1] if isinstance(read.shape[-1], int) else None
    return lambda x: session.run(None, {read.name: x.numpy()}), side


def _load_program(path: Path) -> tuple[Run, int | None]:
    """Load a program of torch.export and the side of its example input, None if it has none."""
    try:
        program = torch.export.load(path)
    except Exception as error:  # zipfile, json and torch raise errors of many kinds
        raise InputError(f"the saliency network {str(path)!r} cannot be read ({error}).") from None
    example = program.example_inputs
    return program.module(), int(example[0][0].shape[-1]) if example and example[0] else None


def _is_torchscript(path: Path) -> bool:
    """Return whether a file is an archive of TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load_torchscript(path: Path) -> Run:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, files of it remain
            network: Run = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # RuntimeError and others on damaged files
        raise InputError(f"the saliency network {str(path)!r} cannot be read ({error}).") from None
    return network


def _load_deeplab(path: Path) -> Callable[[Image], NDArray[np.float32]]:
    """Load a DeepLab file; its saliency is the probability of anything but background."""
    from camplug.wsss.deeplab.checkpoint import DEEPLAB_FILE
    from camplug.wsss.deeplab.segmenter import Segmenter

    if DEEPLAB_FILE.read(str(path)) is None:
        raise InputError(
            f"{str(path)!r} is no saliency network; give TorchScript (torch.jit.save), a program of torch.export "
            "(.pt2), ONNX (.onnx), or deeplab.pt of `camplug train deeplab`, not weights alone."
        )
    segmenter = Segmenter(DEEPLAB_FILE.load(str(path)))
    return lambda photo: (1 - segmenter.scores(np.asarray(photo))[0]).clip(0, 1)
