"""Explainers for the tests of the wrappers: some whose maps can be told by hand, one that keeps what it was shown."""

from __future__ import annotations

import awkward
import numpy as np
import torch
from torch import nn

import camplug
from camplug.explain.base import Result
from camplug.explain.fuse import normalize_map, resize_maps
from camplug.plug import find_first_weight, resolve_classes


class Means(nn.Module):
    """Class c is as present as channel c is bright."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return x.mean((2, 3))


class Channels(camplug.Explainer):
    """The map of class c is channel c of the image. `seen` keeps the images and classes of every run."""

    name = "channels"

    def __init__(self, model=None, normalize="max"):
        super().__init__(model or Means(), normalize=normalize)
        self.seen = []

    def run(self, x, classes, size=None):
        self.seen.append((x.clone(), classes))
        logits = self.model(x)
        targets = resolve_classes(classes, logits, len(x))
        size = size or tuple(x.shape[2:])
        maps = [resize_maps(x[i, list(c)].clamp_min(0), size) for i, c in enumerate(targets.classes)]
        return Result([normalize_map(m, self.normalize) for m in maps], targets, logits)


class Scripted(Channels):
    """Gives prepared maps [K,h,w] and logits [C] of one image, run after run, whatever it is shown."""

    def __init__(self, runs, model=None):
        super().__init__(model)
        self.runs = iter(runs)

    def run(self, x, classes, size=None):
        self.seen.append((x.clone(), classes))
        maps, logits = next(self.runs)
        maps, logits = torch.tensor(maps).to(x.device), torch.tensor([logits]).to(x.device)
        return Result([maps], resolve_classes(classes, logits, 1), logits)


class Recording(camplug.Wrapper):
    """Keeps the images, classes and sizes that its explainer is asked for."""

    kind = "recording"

    def __init__(self, explainer):
        super().__init__(explainer, normalize=explainer.normalize)
        self.seen = []

    def run(self, x, classes, size=None):
        self.seen.append((x.clone(), classes, size))
        return self.explainer.run(x, classes, size)


def model_and_batch(n=2, shape=(12, 14), device="cpu"):
    torch.manual_seed(0)
    model, x = awkward.FeatureModule().eval(), torch.randn(n, 3, *shape)
    return model.to(device, torch.float64), x.to(device, torch.float64)


def batch_of(image, model):
    """An image [C,H,W] in numpy as a batch on the model's device."""
    weight = find_first_weight(model)
    return torch.from_numpy(image)[None].to("cpu" if weight is None else weight.device)


def same(a, b):
    """Equal to the bit; on CUDA, whose sums need not run in the same order twice, to a little more than rounding."""
    if not a.is_cuda:
        return torch.equal(a, b)
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-10 if a.dtype == torch.float64 else 1e-5)


def looking(explainer):
    """The maps [K,h,w] of one image [C,H,W] and its classes, in numpy, as the slow references ask for them."""

    def look(image, classes, size=None):
        return explainer.maps(batch_of(image, explainer.model), [classes], size)[0].cpu().numpy()

    return look


def chances(model, weight):
    """The probabilities of an image's classes, in numpy."""

    def chance(image, classes):
        with torch.no_grad():
            logits = model(batch_of(image, model))[0].float().cpu().numpy().astype(float)
        odds = np.exp(logits)
        return (odds / (1 + odds) if weight == "sigmoid" else odds / odds.sum())[classes]

    return chance
