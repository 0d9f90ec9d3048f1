"""Images per second of `camplug seeds` on a device, against the model alone, and where the time goes.

    python benchmarks/device_seeds.py --data VOCdevkit/VOC2012 --weights weights --device cuda --json seeds.json

`run` is `make_seeds` over all images, as the command calls it, at each batch of `--together`, with the mean number of
images in the model's forward passes: photographs of one size and number of classes share one. `parts` are the seconds
of its steps on the same images, one by one with a wait for the device after each, so that their sum is larger than a
run's time. `model` is a forward pass alone. Seconds of runs and of the model on the CPU are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from device_data import Part, add_device_options, classifier, clocked, facts, opened, peak_mib, wait

from camplug.explain import create
from camplug.models.preprocess import find_preprocess
from camplug.wsss.data import SegmentationData
from camplug.wsss.seeds import Seed, SeedFolder, make_seeds
from camplug.wsss.store.seed_folder import pack_maps

EXPLAINERS = ["CAM", "FullyCAM", "MultiView(FullyCAM)", "Dense(FullyCAM, 8)"]


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_device_options(parser)
    parser.add_argument("--count", type=int, help="images of val; all by default")
    parser.add_argument("--long-side", type=int, default=320)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64], help="of the model alone")
    parser.add_argument("--together", type=int, nargs="+", default=[1, 8], help="photographs in a batch of seeds")
    parser.add_argument("--explainers", nargs="+", default=EXPLAINERS)
    return parser.parse_args(argv)


def read_clock(device: str) -> float:
    """Return seconds; on the CPU those that this process has used, whatever else the machine does."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def whole_run(explainer: Any, data: SegmentationData, device: str, batch: int) -> dict[str, float]:
    """Images per second of `make_seeds` and images per forward pass."""
    passes: list[int] = []
    watch = explainer.model.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    with tempfile.TemporaryDirectory() as folder:
        seeds = SeedFolder(Path(folder) / "seeds")
        seeds.prepare({})
        start = read_clock(device)
        report = make_seeds(explainer, data, seeds, batch=batch)
        wait(device)
        seconds = read_clock(device) - start
    if report.broken:
        raise SystemExit(f"broken: {report.broken[:3]}")
    watch.remove()
    return {"images_per_second": len(data) / seconds, "images_per_pass": sum(passes) / max(1, len(passes))}


def parts_of(explainer: Any, data: SegmentationData, device: str) -> dict[str, float]:
    """Milliseconds per image of each step."""
    seconds: dict[str, float] = {}
    reads = find_preprocess(explainer.model, explainer.preprocess)
    with tempfile.TemporaryDirectory() as path:
        folder = SeedFolder(Path(path) / "seeds")
        folder.prepare({})
        for i in range(len(data)):
            if i == 1:  # the first image warms up
                seconds.clear()
            with clocked(seconds, "decode", device):
                photo, classes = data.photo(i), data.labels(i)
                photo.load()
            with clocked(seconds, "preprocess", device):
                x = reads(photo)[0][None]
            with clocked(seconds, "to the device", device):
                x = x.to(device)
            with clocked(seconds, "forward pass alone", device), torch.no_grad():
                logits = explainer.model(x)
            with clocked(seconds, "explain", device):
                maps = explainer.run(x, [list(classes)], (photo.height, photo.width)).maps[0]
            with clocked(seconds, "to the CPU", device):
                maps, logits = maps.float().cpu(), logits[0].float().cpu()
            with clocked(seconds, "pack", device):
                seed = Seed(pack_maps(maps, "uint8", 1.0), classes, (photo.height, photo.width), logits.numpy())
            with clocked(seconds, "write", device):
                folder.save(data.ids[i], seed)
    return {what: 1000 * value / max(1, len(data) - 1) for what, value in seconds.items()}


def model_alone(model: torch.nn.Module, side: int, batch: int, device: str, rounds: int = 10) -> float:
    """Images per second of forward passes of square images."""
    x = torch.randn(batch, 3, side, side).to(device)
    with torch.no_grad():
        for r in range(-2, rounds):
            if r == 0:
                wait(device)
                start = read_clock(device)
            model(x)
    wait(device)
    return rounds * batch / (read_clock(device) - start)


def main(argv: list[str]) -> None:
    args = parsed(argv)
    data = Part(opened(args.data, "val"), args.count)
    model = classifier(args.weights, args.device)
    reads = find_preprocess(model, None)
    alone = {str(b): model_alone(model, args.long_side, b, args.device) for b in args.batch}
    result: dict[str, Any] = {
        "machine": facts(args.device),
        "images": len(data),
        "long_side": args.long_side,
        "model_alone_images_per_second": alone,
        "rows": {},
    }
    for line in args.explainers:
        explainer = create(line, model, preprocess=replace(reads, long_side=args.long_side))  # type: ignore[type-var]
        batches = (args.together[0], *args.together)  # the first run finds out what is known of each size afterwards
        runs = [(b, whole_run(explainer, data, args.device, b)) for b in batches]
        result["rows"][line] = {
            "run": {str(b): run for b, run in runs},
            "parts_ms": parts_of(explainer, data, args.device),
            "peak_mib": peak_mib(args.device),
        }
        print(line, result["rows"][line], file=sys.stderr, flush=True)
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
