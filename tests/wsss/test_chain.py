"""The road from image-level labels to pseudo-labels: each stage pays, and masks only score and choose thresholds."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import camplug
from camplug.metrics import apply_best_threshold, miou
from camplug.wsss.affinitynet import AffinityNetHeadSettings, AffinityNetSettings, train_affinitynet
from camplug.wsss.data import Scenes, SegmentationData
from camplug.wsss.irn import IRNHeadSettings, IRNSettings, train_irn
from camplug.wsss.pseudo import (
    AffinityNetWalk,
    IRNWalk,
    LabelFolder,
    PseudoLabels,
    Threshold,
    make_labels,
    make_walked_seeds,
)
from camplug.wsss.seeds import SeedFolder, make_seeds, score_labels, score_seeds
from camplug.wsss.train import ScheduleSettings, TrainSettings

SIZE = (96, 128)
# A quarter of each creature tells nothing about its class. Of half, the default, image labels teach next to nothing:
# all stages end below the 58 % that heads alone are worth, and gain less.
KIND = {"size": SIZE, "classes": 4, "plain": 0.25}
PREPROCESS = camplug.Preprocess(SIZE, (0.5,) * 3, (0.25,) * 3)
# Colours count as one up to 13 levels in the CRF "affinitynet", up to 5 in "irn"; scenes have noise of 7.6 levels.
CRF = "affinitynet"
# Published walks take 256 steps on a grid of about 94x125. Here it is a quarter as wide, so that 256 / 4^2 steps carry
# a map over the same share of the picture.
STEPS = 16


class Maskless(SegmentationData):
    """Scenes drawn once, with image-level labels only: whoever asks for a mask fails."""

    has_masks = True  # so that nobody leaves masks alone because there are none

    def __init__(self, scenes):
        self.ids, self.classes = scenes.ids, scenes.classes
        self._drawn = [(scenes.photo(i), scenes.labels(i)) for i in range(len(scenes))]

    def photo(self, i):
        return self._drawn[i][0]

    def labels(self, i):
        return self._drawn[i][1]

    def mask(self, i):
        raise AssertionError("a mask was read before scoring")


def stage(channels, width):
    return nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Net(nn.Module):
    """Four stages, of strides 2 to 16, and a linear head over their mean."""

    def __init__(self, classes):
        super().__init__()
        self.stages = nn.Sequential(stage(3, 16), stage(16, 32), stage(32, 64), stage(64, 128))
        self.fc = nn.Linear(128, classes)

    def forward(self, x):
        return self.fc(self.stages(x).mean((2, 3)))


def classifier(data, seed, epochs=25, batch=16, lr=3e-3):
    torch.manual_seed(seed)
    x = torch.stack([PREPROCESS(data.photo(i))[0] for i in range(len(data))])
    y = torch.zeros(len(data), len(data.classes))
    for i in range(len(data)):
        y[i, list(data.labels(i))] = 1
    net = Net(len(data.classes))
    optimizer = torch.optim.AdamW(net.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * (len(x) // batch))
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(batch)[: len(x) // batch]:
            images = x[part].flip(-1) if torch.rand(()) < 0.5 else x[part]
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(net(images), y[part]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


class Chain:
    """One run: the mIoU [%] of every stage on a train and a val split, thresholds chosen on train."""

    def __init__(self, path, seed, images=240, walked=60, held_out=30):
        self.path, self.scores, self.seconds, self._started = path, {}, {}, time.process_time()
        masked = Scenes(walked, seed=2 * seed, **KIND), Scenes(held_out, seed=2 * seed + 1, **KIND)
        self.masked = dict(zip(("train", "val"), masked, strict=True))
        self.data = {name: Maskless(scenes) for name, scenes in self.masked.items()}
        net = classifier(Maskless(Scenes(images, seed=2 * seed, **KIND)), seed)  # those of "train", and more
        explainer = camplug.create("MultiView(CAM, scales=(1, 2))", net, preprocess=PREPROCESS)
        seeds = self.folders("seeds", lambda data, out, _: make_seeds(explainer, data, out))
        self.label("seeds + CRF", seeds, self.score("seeds", seeds))

        schedule = ScheduleSettings("adamw", lr=1e-2)
        training = TrainSettings(epochs=10, batch=4, crop=96, scales=(0.75, 1.25), seed=seed)
        # Maps leak over the ground that a class mostly stands on, to about .2, so that sure background ends there:
        # at the published .05 such grounds would have no labels. (1 - m)^2 and (1 - m)^8 are m at .38 and .19.
        affinities = AffinityNetSettings(
            low=2, high=8, crf=CRF, network=AffinityNetHeadSettings(width=56, schedule=schedule), training=training
        )
        boundaries = IRNSettings(
            foreground=0.4,
            background=0.2,
            crf=CRF,
            network=IRNHeadSettings(radius=5, width=0, schedule=schedule),  # without instances
            training=training,
        )
        data = self.data["train"], seeds["train"]
        psa = train_affinitynet(net, *data, path / "affinitynet", affinities, preprocess=PREPROCESS)
        assert (psa.images, psa.broken) == (walked, [])
        self.score("PSA walk", self.walked("PSA walk", AffinityNetWalk(psa.network, alpha=4, steps=STEPS), seeds))
        irn = train_irn(net, *data, path / "irn", boundaries, preprocess=PREPROCESS)
        assert (irn.images, irn.broken) == (walked, [])
        spread = self.walked("IRN walk", IRNWalk(irn.network, power=1.5, steps=STEPS), seeds)
        self.label("IRN walk + CRF", spread, self.score("IRN walk", spread))

    def folders(self, name, make, kind=SeedFolder):
        """What `make` puts into a folder for each split, without a mask."""
        made = {}
        for split, data in self.data.items():
            made[split] = kind(self.path / name / split)
            made[split].prepare({})
            report = make(data, made[split], split)
            assert report.made == len(data), report.broken
        return made

    def walked(self, name, walk, seeds):
        return self.folders(name, lambda data, out, split: make_walked_seeds(walk, data, seeds[split], out))

    def score(self, name, seeds):
        """The threshold that is best on train."""
        train, val = (score_seeds(seeds[split], data)[0] for split, data in self.masked.items())
        threshold, held_out = apply_best_threshold(train, val)
        self._note(name, train.best()[1], held_out)
        return threshold

    def label(self, name, seeds, threshold):
        labels = PseudoLabels(Threshold(threshold), CRF)
        made = self.folders(name, lambda data, out, split: make_labels(labels, data, seeds[split], out), LabelFolder)
        self._note(name, *(miou(score_labels(made[split].path, data)[0].matrix) for split, data in self.masked.items()))

    def _note(self, name, train, val):
        now = time.process_time()
        self.scores[name], self.seconds[name] = (100 * float(train), 100 * float(val)), now - self._started
        self._started = now

    def __str__(self):
        lines = [f"{name:16}{a:6.1f}{b:6.1f}{self.seconds[name]:6.0f} s" for name, (a, b) in self.scores.items()]
        return "\n".join([f"{'mIoU [%]':16}{'train':>6}{'val':>6}", *lines])


@pytest.mark.slow
def test_every_stage_from_image_labels_to_pseudo_labels_pays(tmp_path):
    chain = Chain(tmp_path, seed=0)
    print(f"\n{chain}")
    # with six seeds, of scenes and trainings, the smallest gains were 11.7, 6.6, 9.9 and 1.3 points
    for before, after, points in (
        ("seeds", "seeds + CRF", 6),
        ("seeds", "PSA walk", 3),
        ("seeds", "IRN walk", 5),
        ("IRN walk", "IRN walk + CRF", 0),
    ):
        for split, low, high in zip(("train", "val"), chain.scores[before], chain.scores[after], strict=True):
            assert high > low + points, (split, before, after)
