"""Dense CRF, random walk and PAR on a device against their CPU forms: equal labels, and the time per image.

    python benchmarks/device_refinement.py --device cuda --json refinement.json

Contenders take turns in every round. Labels are the strongest class at each pixel.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from crf import labels_of, opener, photo_of
from device_data import facts
from measure import Spread, interleaved, plain, ratios
from torch import nn
from walk import scene

from camplug.wsss.affinity import SparseAffinity, make_half_disc, propagate
from camplug.wsss.crf import DenseCRF, make_unary_from_labels, pixel_adaptive_refinement, refine_photographs

STEPS, BETA, RADIUS = 256, 10, 5
TOGETHER = 8  # photographs in one inference


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, nargs=2, default=[375, 500], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 21], help="K, the background included")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True, help="write everything here")
    return parser.parse_args(argv)


def jobs(size: tuple[int, int], k: int, device: str) -> dict[str, dict[str, Callable[[], Any]]]:
    """By refinement, its forms: calls that give marginals or maps [K,H,W], from input on the CPU or on the device."""
    height, width = size
    photo = np.array(photo_of(None))[:height, :width]
    labels = labels_of(k, photo.shape[:2])
    unary = make_unary_from_labels(labels, k)
    planes, maps = scene(height // 4, width // 4, k)
    offsets = make_half_disc(RADIUS)
    planes_there = torch.from_numpy(planes).to(device)
    scores = torch.rand(k, *photo.shape[:2], generator=torch.Generator().manual_seed(0))
    there, maps_there = scores.to(device), torch.from_numpy(maps).to(device)
    return {
        "dense CRF": {
            "numpy, scipy": lambda: DenseCRF(photo, "irn").refine(unary),
            f"torch, {device}": lambda: DenseCRF(photo, "irn", backend="torch", device=device).refine(unary),
        },
        f"dense CRF, {TOGETHER} photographs": {
            "numpy, scipy": lambda: np.concatenate([DenseCRF(photo, "irn").refine(unary) for _ in range(TOGETHER)], -1),
            f"torch, {device}": lambda: np.concatenate(
                refine_photographs([photo] * TOGETHER, [unary] * TOGETHER, "irn", device=device), -1
            ),
        },
        "random walk": {
            "numpy, scipy": lambda: propagate(maps, SparseAffinity.from_pairs(planes, offsets), STEPS, BETA),
            f"torch, {device}": lambda: propagate(
                maps_there, SparseAffinity.from_pairs(planes_there, offsets), STEPS, BETA
            ),
        },
        "PAR": {
            "numpy, scipy": lambda: pixel_adaptive_refinement(photo, scores),
            f"torch, {device}": lambda: pixel_adaptive_refinement(photo, there),
        },
    }


def row(what: str, forms: dict[str, Callable[[], Any]], k: int, device: str, rounds: int) -> dict[str, Any]:
    """Times of both forms, their ratio, and how far they are apart."""
    one, other = (torch.as_tensor(call()).cpu() for call in forms.values())
    walls = {
        name: [wall for wall, _ in times]
        for name, times in interleaved(
            {name: opener(call) for name, call in forms.items()}, nn.Identity(), torch.device(device), rounds
        ).items()
    }
    first, second = walls.values()
    return plain(
        {
            "what": what,
            "classes": k,
            "seconds": {name: Spread.of(times) for name, times in walls.items()},
            "device_over_cpu": ratios(second, first),
            "labels_differing": float((one.argmax(0) != other.argmax(0)).float().mean()),
            "largest_difference": float((one - other).abs().max() / one.abs().max()),
        }
    )


def main(argv: list[str]) -> None:
    args = parsed(argv)
    rows = []
    for k in args.classes:
        for what, forms in jobs(tuple(args.size), k, args.device).items():
            rows.append(row(what, forms, k, args.device, args.rounds))
            print(rows[-1], file=sys.stderr, flush=True)
            args.json.write_text(
                json.dumps({"machine": facts(args.device), "size": args.size, "rounds": args.rounds, "rows": rows})
            )


if __name__ == "__main__":
    main(sys.argv[1:])
