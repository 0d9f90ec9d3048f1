"""Maps of a whole data set, and their mIoU: scenes drawn on the spot stand for VOC or COCO."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import camplug
from camplug.metrics import apply_best_threshold
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import SeedFolder, make_seeds, score_seeds


def batch(data: Scenes, indices: range) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.stack([transform(data.photo(i)) for i in indices])
    y = torch.zeros(len(x), len(data.classes))
    for row, i in enumerate(indices):
        y[row, list(data.labels(i))] = 1
    return x, y


def transform(photo) -> torch.Tensor:
    return camplug.Preprocess((64, 64), (0.5,) * 3, (0.5,) * 3)(photo)[0]


torch.manual_seed(0)
train, val = Scenes(160, size=(64, 64), seed=0), Scenes(40, size=(64, 64), seed=1)
layers = [
    nn.Conv2d(3, 16, 3, 2, 1),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, 2, 1),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, 1, 1),
    nn.ReLU(),
]
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(train.classes)))
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
x, y = batch(train, range(len(train)))
for _ in range(12):  # image labels only
    for part in torch.randperm(len(x)).split(16):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x[part]), y[part]).backward()
        optimizer.step()
model.eval()

explainer = camplug.create(
    "MultiView(FullyCAM, scales=(1, 1.5))", model, preprocess=camplug.Preprocess((64, 64), (0.5,) * 3, (0.5,) * 3)
)
sweeps = []
for name, data in (("train", train), ("val", val)):
    folder = SeedFolder(Path(tempfile.mkdtemp()) / name)
    report = make_seeds(explainer, data, folder)
    print(f"{name}: {report.made} seeds, {report.bytes / report.made / 1e3:.1f} MB per 1000 images")
    sweeps.append(score_seeds(folder, data)[0])
threshold, score = apply_best_threshold(*sweeps)
print(f"mIoU on val {100 * score:.1f} at the threshold that is best on train, {threshold:.2f}")
