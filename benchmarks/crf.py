"""Time and memory of the dense CRF, from photograph and labels to labels, against pydensecrf's C++.

    pip install pydensecrf2 scikit-image
    python benchmarks/crf.py --rounds 9

Contenders take turns in every round; ratios are taken within a round. `first of its size`: nothing is kept from earlier
photographs; else the Gaussian lattice of this size is, as in a run over a data set.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markdown_tables import renew, table
from measure import Spread, interleaved, machine, ratios
from PIL import Image
from torch import nn

from camplug.wsss.crf import PRESETS, DenseCRF, kernels, make_unary_from_labels

HEAD = ["preset", "K", "pydensecrf, s", "camplug, s", "ratio", "ratio, first of its size", "labels differing"]
PEAKS = ["pydensecrf, MiB", "camplug, MiB"]


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--photo", type=Path, help="instead of scikit-image's cat, resized to 500x375")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--classes", nargs="+", type=int, default=[3, 21], help="K, the background included")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory (Linux only)")
    parser.add_argument("--markdown", type=Path, help="renew the table between <!-- crf --> marks in this file")
    return parser.parse_args(argv)


def photo_of(path: Path | None) -> np.ndarray:
    if path:
        return np.array(Image.open(path).convert("RGB"))
    from skimage.data import chelsea

    return np.array(Image.fromarray(chelsea()).resize((500, 375)))


def labels_of(k: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth regions that know nothing of the photograph, [H, W]."""
    height, width = size
    planes = np.random.default_rng(k).normal(size=(k, 6, 6)).astype(np.float32)
    smooth = [np.array(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in planes]
    return np.argmax(smooth, 0)


def camplug(photo: np.ndarray, labels: np.ndarray, k: int, preset: str) -> np.ndarray:
    return DenseCRF(photo, preset).refine(make_unary_from_labels(labels, k)).argmax(0)


def first_of_its_size(photo: np.ndarray, labels: np.ndarray, k: int, preset: str) -> np.ndarray:
    kernels.clear_kernel_cache()
    return camplug(photo, labels, k, preset)


def pydensecrf(photo: np.ndarray, labels: np.ndarray, k: int, preset: str) -> np.ndarray:
    """As IRN calls it."""
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_labels as unary

    height, width = labels.shape
    (gxy, smooth), (bxy, brgb, alike) = PRESETS[preset].gaussian, PRESETS[preset].bilateral
    crf = DenseCRF2D(width, height, k)
    crf.setUnaryEnergy(unary(labels, k, gt_prob=0.7, zero_unsure=False))
    crf.addPairwiseGaussian(sxy=gxy, compat=smooth)
    crf.addPairwiseBilateral(sxy=bxy, srgb=brgb, rgbim=np.ascontiguousarray(photo), compat=alike)
    return np.argmax(crf.inference(PRESETS[preset].iterations), axis=0).reshape(height, width)


Contender = Callable[[np.ndarray, np.ndarray, int, str], np.ndarray]


def opener(contender: Contender, *given: Any) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[Callable[[], np.ndarray]]:
        yield lambda: contender(*given)

    return opened


def peak(contender: Contender, *given: Any) -> float:
    """Peak resident memory of one call in a process of its own, in MiB above what it had before (Linux)."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (contender, given))


def _peak(contender: Contender, given: tuple[Any, ...]) -> float:
    photo, labels, *rest = given
    contender(photo[:8, :8], labels[:8, :8], *rest)  # what is imported or set up once
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = _resident()
    contender(*given)
    return _resident() - before


def _resident() -> float:
    """Peak resident memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def row(photo: np.ndarray, k: int, preset: str, rounds: int, memory: bool) -> list[str]:
    given = (photo, labels_of(k, photo.shape[:2]), k, preset)
    contenders = {"theirs": pydensecrf, "ours": camplug, "first": first_of_its_size}
    openers = {name: opener(contender, *given) for name, contender in contenders.items()}
    walls = {
        name: [wall for wall, _ in times]
        for name, times in interleaved(openers, nn.Identity(), torch.device("cpu"), rounds).items()
    }
    differing = (camplug(*given) != pydensecrf(*given)).mean()
    cells = [preset, str(k), shown(Spread.of(walls["theirs"])), shown(Spread.of(walls["ours"]))]
    cells += [shown(ratios(walls[name], walls["theirs"])) for name in ("ours", "first")]
    cells += [f"{differing:.3%}"]
    return cells + [f"{peak(contender, *given):.0f}" for contender in (pydensecrf, first_of_its_size) if memory]


def shown(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"


def main(argv: list[str]) -> None:
    args = parsed(argv)
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        raise SystemExit("there is nothing to compare with: pip install pydensecrf2") from None
    torch.set_num_threads(1)
    photo = photo_of(args.photo)
    body = [row(photo, k, preset, args.rounds, not args.no_memory) for preset in args.presets for k in args.classes]
    about = machine(torch.device("cpu"), ["camplug", "pydensecrf2", "numpy", "scipy"])
    lines = [f"`{shlex.join(['python', 'benchmarks/crf.py', *argv])}`", ""]
    lines += table(HEAD + ([] if args.no_memory else PEAKS), body)
    lines += [
        f"{photo.shape[1]}x{photo.shape[0]} pixels, {args.rounds} rounds, median (quartiles). {about['cpu']}, "
        f"Python {about['python']}, " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "",
    ]
    print("\n".join(lines))
    if args.markdown:
        renew(args.markdown, "crf", lines)


if __name__ == "__main__":
    main(sys.argv[1:])
