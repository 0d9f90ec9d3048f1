"""One short training of every kind on a device, with mixed precision and without: losses, images per second, memory.

    python benchmarks/device_training.py --data VOCdevkit/VOC2012 --weights weights --device cuda --json training.json

Losses are those of the first and the last tenth of the steps. Images per second are those of the steps after the
tenth part, loading included; the rest of a training (labels of IRN, the mean displacement, files) is not.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from device_data import READS, Part, add_device_options, beginning, classifier, facts, opened, peak_mib, wait
from lightning.pytorch import Callback, Trainer

from camplug.explain import create
from camplug.wsss.affinitynet import AffinityNetSettings, train_affinitynet
from camplug.wsss.atm import ATM
from camplug.wsss.classifier import Method, get_preset, train_classifier
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab import DeepLabNetworkSettings, DeepLabSettings, train_deeplab
from camplug.wsss.fpr import FPR
from camplug.wsss.irn import IRNSettings, train_irn
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.rpnet import RPNet
from camplug.wsss.seeds import SeedFolder, make_seeds
from camplug.wsss.train import TrainSettings
from camplug.wsss.train.options import TrainDtype

ROWS = ("classifier", "atm", "rpnet", "fpr", "irn", "affinitynet", "deeplab")


class Clock(Callback):
    """Notes the loss of every step on the device, and the time when a tenth of the steps and when all are done."""

    def __init__(self, device: str, batch: int) -> None:
        self.device, self.batch = device, batch
        self.losses: list[torch.Tensor] = []
        self.begun = self.ended = 0.0
        self.uncounted = 0  # steps before the clock began

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].detach().float())
        if len(self.losses) == max(1, trainer.estimated_stepping_batches // 10):
            wait(self.device)
            self.begun, self.uncounted = time.perf_counter(), len(self.losses)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        wait(self.device)
        self.ended = time.perf_counter()
        self.precision = str(trainer.precision)

    def result(self) -> dict[str, Any]:
        losses = torch.stack(self.losses).cpu()
        tenth = max(1, len(losses) // 10)
        images = self.batch * (len(losses) - self.uncounted)
        return {
            "steps": len(losses),
            "precision": self.precision,
            "first_losses": float(losses[:tenth].mean()),
            "last_losses": float(losses[-tenth:].mean()),
            "finite": bool(losses.isfinite().all()),
            "images_per_second": images / (self.ended - self.begun) if images else None,
        }


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Give every `Trainer` made in this block the callback."""
    original = Trainer.__init__

    def made(self: Any, *args: Any, callbacks: Any = (), **options: Any) -> None:
        original(self, *args, callbacks=[*callbacks, clock], **options)

    Trainer.__init__ = made  # type: ignore[method-assign]
    try:
        yield
    finally:
        Trainer.__init__ = original  # type: ignore[method-assign]


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_device_options(parser)
    parser.add_argument("--count", type=int, default=256, help="images to train on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "auto"], choices=get_args(TrainDtype))
    return parser.parse_args(argv)


def trainings(args: argparse.Namespace, folder: Path) -> dict[str, Callable[[TrainDtype, Path], Any]]:
    """Return calls (dtype, out) that train, by name."""
    data = Part(opened(args.data, "train_aug"), args.count)
    masked = Part(opened(args.data, "train"), args.count)
    learning, span = get_preset("modern")
    span = replace(span, epochs=args.epochs, batch=args.batch, crop=args.crop, sides=(args.crop, args.crop * 3 // 2))
    heads = TrainSettings(args.epochs, args.batch, args.crop, (0.8, 1.2))
    common = {"workers": args.workers, "preprocess": READS}

    def train(method: Method) -> Callable[[TrainDtype, Path], Any]:
        def call(dtype: TrainDtype, out: Path) -> Any:
            model = beginning(args.weights, args.device)
            return train_classifier(
                model, data, out, method=method, learning=learning, span=span, dtype=dtype, **common
            ).network

        return call

    def fpr(dtype: TrainDtype, out: Path) -> Any:
        model = classifier(args.weights, args.device)
        if args.weights is None:  # the small network's head is no head that FPR can go on with
            model = train(Method())(dtype, out.with_name(out.name + "_start"))
        return train_classifier(
            model, data, out, method=FPR(), learning=learning, span=span, dtype=dtype, **common
        ).network

    def of_seeds(function: Any, settings: Any) -> Callable[[TrainDtype, Path], Any]:
        def call(dtype: TrainDtype, out: Path) -> Any:
            seeds = seeds_of(masked, classifier(args.weights, args.device), folder / "seeds")
            more = {"dtype": dtype} if "dtype" in inspect.signature(function).parameters else {}
            return function(
                classifier(args.weights, args.device), masked, seeds, out, settings, **common, **more
            ).network

        return call

    def deeplab(dtype: TrainDtype, out: Path) -> Any:
        settings = DeepLabSettings(DeepLabNetworkSettings(width=64), heads)
        labels = labels_of(masked, folder / "labels")
        model = beginning(args.weights, args.device)
        return train_deeplab(model, masked, labels, out, settings, dtype=dtype, **common).network

    return {
        "classifier": train(Method()),
        "atm": train(ATM()),
        "rpnet": train(RPNet(images=2, ramp=0.5)),
        "fpr": fpr,
        "irn": of_seeds(train_irn, IRNSettings(foreground="otsu", background="otsu", crf=None, training=heads)),
        "affinitynet": of_seeds(train_affinitynet, AffinityNetSettings(crf=None, training=heads)),
        "deeplab": deeplab,
    }


def seeds_of(data: SegmentationData, model: torch.nn.Module, path: Path) -> SeedFolder:
    """Seeds of all images, by CAM."""
    folder = SeedFolder(path)
    folder.prepare({"classes": list(data.classes)})
    make_seeds(create("GradCAM", model, preprocess=READS), data, folder)
    return folder


def labels_of(data: SegmentationData, path: Path) -> Path:
    """The masks as label pictures: what is measured is the training, not what comes of it."""
    folder = LabelFolder(path)
    folder.prepare({"classes": list(data.classes)})
    for i, name in enumerate(data.ids):
        folder.save(name, data.mask(i))
    return path


def main(argv: list[str]) -> None:
    args = parsed(argv)
    options = {name: str(value) for name, value in vars(args).items()}
    result: dict[str, Any] = {"machine": facts(args.device), "options": options, "rows": []}
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        calls = trainings(args, folder)
        for name in args.rows:
            for dtype in args.dtypes:
                if args.device.startswith("cuda"):
                    torch.cuda.reset_peak_memory_stats()
                clock = Clock(args.device, args.batch)
                start = time.perf_counter()
                row: dict[str, Any] = {"training": name, "dtype": dtype}
                try:
                    with watched(clock):
                        network = calls[name](dtype, folder / f"{name}_{dtype}")
                    row |= clock.result()
                    row["weights_finite"] = all(bool(p.isfinite().all()) for p in network.parameters())
                except Exception:
                    row["error"] = traceback.format_exc()
                row |= {"seconds": time.perf_counter() - start, "peak_mib": peak_mib(args.device)}
                result["rows"].append(row)
                print(row.get("error", row), file=sys.stderr, flush=True)
                args.json.write_text(json.dumps(result, indent=1))
    if any("error" in row for row in result["rows"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
