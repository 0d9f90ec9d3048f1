"""From image labels to pseudo-labels: CAM, then IRN's random walk, then a dense CRF. Needs camplug[train]."""

import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import camplug
from camplug.metrics import apply_best_threshold, miou
from camplug.wsss.data import Scenes
from camplug.wsss.irn import IRNHeadSettings, IRNSettings, train_irn
from camplug.wsss.pseudo import IRNWalk, LabelFolder, PseudoLabels, Threshold, make_labels, make_walked_seeds
from camplug.wsss.seeds import SeedFolder, make_seeds, score_labels, score_seeds
from camplug.wsss.train import ScheduleSettings, TrainSettings

torch.manual_seed(0)
out, preprocess = Path(tempfile.mkdtemp()), camplug.Preprocess((96, 128), (0.5,) * 3, (0.25,) * 3)
splits = {"train": Scenes(120, (96, 128), 0, 4, plain=0.25), "val": Scenes(30, (96, 128), 1, 4, plain=0.25)}
data = splits["train"]

widths = (3, 16, 32, 64, 128)
layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths)]
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 4))
x = torch.stack([preprocess(data.photo(i))[0] for i in range(len(data))])
y = torch.stack([torch.tensor([float(c in data.labels(i)) for c in range(4)]) for i in range(len(data))])
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for _ in range(36):
    for part in torch.randperm(len(x)).split(16):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x[part]), y[part]).backward()
        optimizer.step()
explainer = camplug.create("MultiView(CAM, scales=(1, 2))", model.eval(), preprocess=preprocess)

seeds = {split: SeedFolder(out / "seeds" / split) for split in splits}
for split, folder in seeds.items():
    folder.prepare({"explainer": explainer.name})  # what the maps were made with
    make_seeds(explainer, splits[split], folder)
sweeps = [score_seeds(seeds[split], splits[split])[0] for split in splits]
held_out = apply_best_threshold(*sweeps)[1]
print(f"seeds: mIoU on val {100 * held_out:.1f}, at the background threshold that is best on train")

adamw = ScheduleSettings("adamw", lr=1e-2)
crops = TrainSettings(epochs=5, batch=4, crop=96, scales=(0.75, 1.25))
settings = IRNSettings(0.4, 0.2, crf="affinitynet", network=IRNHeadSettings(5, width=0, schedule=adamw), training=crops)
irn = train_irn(model, data, seeds["train"], out / "irn", settings, preprocess=preprocess).network
walked = {split: SeedFolder(out / "walked" / split) for split in splits}
for split, folder in walked.items():
    make_walked_seeds(IRNWalk(irn, power=1.5, steps=16), splits[split], seeds[split], folder)
threshold, score = apply_best_threshold(*(score_seeds(walked[split], splits[split])[0] for split in splits))
print(f"after IRN's walk: {100 * score:.1f}")

labels = LabelFolder(out / "labels")
made = make_labels(PseudoLabels(Threshold(threshold), crf="affinitynet"), splits["val"], walked["val"], labels)
matrix, _ = score_labels(labels.path, splits["val"])
print(f"after a dense CRF: {100 * miou(matrix.matrix):.1f}; {made.made} label pictures in {labels.path}")
