"""Bytes read and written to make layer maps of a ResNet-50's convolutions: by the formulas, and by the CUDA kernel.

    python benchmarks/fold_traffic.py --markdown docs/benchmarks.md

Nothing is timed and no GPU is needed: operations are counted as PyTorch runs them, and the kernel's by its plan. Needs
Triton.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import torch
from markdown_tables import renew, table

import camplug
from camplug.explain.fold import KINDS, Kind
from camplug.explain.fully import fully_cam_layer
from camplug.explain.hirescam import hires_cam
from camplug.explain.layercam import layer_cam

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from traffic import Traffic

FORMULAS = {"fully": fully_cam_layer, "layercam": layer_cam, "hirescam": hires_cam}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def list_shapes() -> list[tuple[int, ...]]:
    """Return the shapes of the outputs of ResNet-50's convolutions for one image of 224x224."""
    model = camplug.load_model("torchvision:resnet50", pretrained=False)
    with camplug.Tape(model, "convs", forward_only=True) as tape:
        model(torch.zeros(1, 3, 224, 224))
        return [tuple(activation.shape) for _, activation in tape.captures]


def count_kernel(kind: Kind, shape: tuple[int, ...], size: int, channels_last: bool) -> int:
    """Return the bytes that the kernel loads and stores for a layer [N,K,h,w] of `size` bytes per value.

    tests/explain/test_fold.py holds this to what Triton's interpreter loads and stores.
    """
    from camplug.explain.fold_kernels import plan_fold

    n, channels, positions = shape[0], shape[1], shape[2] * shape[3]
    plan = plan_fold(n, channels, positions, channels_last, KINDS.index(kind))
    layer, maps = n * channels * positions * size, n * positions * 4
    passes = 4 if plan.two_passes and kind == "fully" else 2
    weights = n * channels * 4 * (1 + plan.columns) if plan.two_passes else 0
    added = maps * (plan.shares + 1) if plan.shares > 1 else 0
    return passes * layer + weights + maps * plan.shares + added


def measure(kind: Kind, dtype: str, layout: str, shapes: list[tuple[int, ...]]) -> list[float]:
    """Return megabytes of all layers: activation and gradient themselves, by the formula, by the kernel."""
    least, kernel, formula = 0, 0, 0
    for shape in shapes:
        a, g = (torch.randn(shape).to(DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout]) for _ in "ag")
        least += 2 * a.numel() * a.element_size()
        with Traffic() as traffic:
            FORMULAS[kind](a, g)
        formula += traffic.bytes
        kernel += count_kernel(kind, shape, a.element_size(), layout == "channels_last")
    return [least / 1e6, formula / 1e6, kernel / 1e6]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--markdown", type=Path, help="renew the table in this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shapes = list_shapes()
    rows = [
        [kind, dtype, layout, *(f"{value:.0f}" for value in measure(kind, dtype, layout, shapes))]
        for kind, dtype, layout in product(FORMULAS, DTYPES, LAYOUTS)
    ]
    head = ["method", "dtype", "memory format", "activations and gradients, MB", "formula, MB", "kernel, MB"]
    lines = ["`python benchmarks/fold_traffic.py --markdown docs/benchmarks.md`", "", *table(head, rows)]
    if args.markdown:
        renew(args.markdown, "fold_traffic", lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
