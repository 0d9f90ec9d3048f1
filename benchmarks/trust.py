"""Trust: time beside Quantus in one interleaved run, and verdicts on real photographs; the tables of docs/trust.md.

    python benchmarks/trust.py speed --rounds 5
    python benchmarks/trust.py verdicts --data VOCdevkit/VOC2012 --weights voc_animals_lite0.pt --every 25 --steps 5

Quantus orders the values of all channels, so the images of `speed` have one channel; weights are random there.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from markdown_tables import renew, table
from measure import Spread, gflop, interleaved, ratios
from torch import Tensor, nn
from typing_extensions import override

import camplug
from camplug import trust
from camplug.explain import create
from camplug.explain.base import Result
from camplug.explain.batch import check_batch
from camplug.wsss.data import VOC

LISTS = Path(__file__).parent.parent / "tests"
PLAIN = {"disable_warnings": True, "display_progressbar": False, "abs": False, "normalise": False}
METHODS = ("random", "fully", "gradcam")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("speed", "verdicts"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4, help="images of `speed`")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--data", type=Path, help="VOCdevkit/VOC2012")
    parser.add_argument("--weights", type=Path, help="state dict of the 20-class classifier")
    parser.add_argument("--val", default=str(LISTS / "voc12_animals_val.txt"), help="split, or file of ids")
    parser.add_argument("--every", type=int, default=25, help="take every n-th image of it")
    parser.add_argument("--steps", type=int, default=10, help="steps of the curves of `verdicts`")
    parser.add_argument("--markdown", type=Path, help="renew the table in this file")
    return parser.parse_args()


def pairs(model: nn.Module, x: Tensor, classes: list[int]) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """By metric, what camplug and what Quantus does."""
    import quantus

    explainer = camplug.GradCAM(model)
    maps = torch.cat(explainer.maps(x, [[c] for c in classes]))
    score = trust.ClassScore(model, check_batch(model, x), classes)
    masks = maps > 0.5
    given = {"model": model, "x_batch": x.numpy(), "y_batch": np.array(classes), "a_batch": maps[:, None].numpy()}
    per_step = x.shape[2] * x.shape[3] // 16
    fractions = (0.2, 0.4, 0.6, 0.8)

    def explain_images(images: Tensor, owners: Any) -> Tensor:
        return trust.explain_classes(explainer, check_batch(model, images), [classes[i] for i in owners])

    def explain_for_quantus(model: Any, inputs: Any, targets: Any, **options: Any) -> Any:
        found = explainer.maps(torch.from_numpy(np.asarray(inputs, np.float32)), [[int(c)] for c in targets])
        return torch.cat(list(found))[:, None].numpy()

    return {
        "deletion, 16 steps": (
            lambda: trust.deletion_curve(score, x, maps, steps=16, batch_size=len(x)),
            lambda: quantus.PixelFlipping(features_in_step=per_step, perturb_baseline=0.0, **PLAIN)(**given),
        ),
        "ROAD, 4 shares": (
            lambda: trust.road_curve(score, x, maps, fractions=fractions, batch_size=len(x)),
            lambda: quantus.ROAD(percentages=[int(100 * f) for f in fractions], **PLAIN)(**given),
        ),
        "max-sensitivity, 10 samples": (
            lambda: trust.max_sensitivity(explain_images, x, maps, samples=10, batch_size=len(x)),
            lambda: quantus.MaxSensitivity(nr_samples=10, **PLAIN)(explain_func=explain_for_quantus, **given),
        ),
        "sparseness": (lambda: trust.sparseness(maps), lambda: quantus.Sparseness(**PLAIN)(**given)),
        "complexity": (lambda: trust.complexity(maps), lambda: quantus.Complexity(**PLAIN)(**given)),
        "pointing game": (
            lambda: trust.pointing_game(maps, masks),
            lambda: quantus.PointingGame(**PLAIN)(s_batch=masks[:, None].numpy(), **given),
        ),
    }


def speed(args: argparse.Namespace) -> list[str]:
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", in_chans=1).eval()
    x = torch.randn(args.images, 1, args.side, args.side)
    body = []
    for name, (ours, theirs) in pairs(model, x, [3 * i for i in range(len(x))]).items():

        def opener(call: Callable[[], Any]) -> Any:
            @contextmanager
            def opened() -> Iterator[Callable[[], Any]]:
                yield call

            return opened

        both = {"camplug": opener(ours), "Quantus": opener(theirs)}
        found = interleaved(both, model, torch.device("cpu"), args.rounds)
        times = {key: [cpu for _, cpu in found[key]] for key in both}
        ratio = ratios(times["Quantus"], times["camplug"])
        cells = [f"{Spread.of(times[key]).median * 1000:.1f}" for key in both]
        work = [f"{gflop(both[key]):.1f}" for key in both]
        share = statistics.median(measure_passes(model, ours) for _ in range(args.rounds))
        most = "-" if share == 0 else f"{ratio.median / share:.1f}"
        cells += [f"{ratio.median:.1f} ({ratio.low:.1f} to {ratio.high:.1f})", *work, f"{100 * share:.0f} %", most]
        body.append([name, *cells])
        print(body[-1], flush=True)
    head = ["metric", "camplug, CPU ms", "Quantus, CPU ms", "ratio (quartiles)", "camplug, GFLOP", "Quantus, GFLOP"]
    return table([*head, "model's share of camplug's time", "ratio if the rest took no time"], body)


def measure_passes(model: nn.Module, call: Callable[[], Any]) -> float:
    """Return the share of a call's CPU time that is spent in forward passes of the model."""
    starts: list[float] = []
    spent: list[float] = []
    hooks = (
        model.register_forward_pre_hook(lambda *_: starts.append(time.process_time())),
        model.register_forward_hook(lambda *_: spent.append(time.process_time() - starts[-1])),
    )
    begin = time.process_time()
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return sum(spent) / (time.process_time() - begin)


class Noise(camplug.Explainer):
    """Smooth maps that have nothing to do with the model, of another seed for every image."""

    name = "random"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.inner = camplug.GradCAM(model)

    @override
    def run(self, x: Tensor, classes: Any, size: Any = None, inputs: Any = None) -> Result:
        result = self.inner.run(x, classes, size)
        seed = int(x[0].abs().sum().item() * 1000) % 2**31
        noise = torch.rand(len(x), 1, 7, 7, generator=torch.Generator().manual_seed(seed))
        result.maps = list(F.interpolate(noise, size or tuple(x.shape[2:]), mode="bilinear"))
        return result


def verdicts(args: argparse.Namespace) -> list[str]:
    model = camplug.load_model("timm:tf_efficientnet_lite0", checkpoint=args.weights, num_classes=20)
    data = VOC(args.data, args.val)
    images = range(0, len(data), args.every)
    body = []
    for name in METHODS:
        explainer = Noise(model) if name == "random" else create(name, model)
        counts, chances = Counter[str](), []
        for i in images:
            report = trust.check(
                explainer, data.photo(i), data.labels(i)[0], steps=args.steps, multi_label=True, seed=i
            )
            counts[report.verdict] += 1
            if report.curves is not None:
                chances.append(report.measured.chance)
        shares = [f"{100 * counts[v] / len(images):.0f} %" for v in ("trustworthy", "doubtful", "untrustworthy")]
        best = sum(c <= 0.05 for c in chances) / len(images)
        body.append([name, *shares, f"{100 * best:.0f} %", f"{np.median(chances):.2f}"])
        print(body[-1], flush=True)
    head = [
        "method",
        "trustworthy",
        "doubtful",
        "untrustworthy",
        "better than at all places",
        "as good at random, median",
    ]
    return table(head, body)


def main() -> None:
    args = parsed()
    warnings.filterwarnings("ignore")
    if args.threads:
        torch.set_num_threads(args.threads)
    lines = speed(args) if args.what == "speed" else verdicts(args)
    print("\n".join(lines))
    if args.markdown:
        renew(args.markdown, args.what, lines)


if __name__ == "__main__":
    main()
