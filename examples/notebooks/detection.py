# %% [markdown]
# # A detector
# `camplug.targets.Detection` explains the score of one box. The detector here is made by hand, finds red and blue in
# the four quarters of an image, and puts out what torchvision's detectors put out: a list of dicts with boxes, labels
# and scores.

# %%
import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

import camplug
from camplug.show import grid


class Quarters(nn.Module):
    """Detector whose boxes are the quarters of the image, each with a score for red and one for blue."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        colours = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])
        self.conv.weight.data = colours[:, :, None, None].expand(2, 3, 3, 3) / 9

    def forward(self, images):
        height, width = images.shape[2:]
        quarters = adaptive_avg_pool2d(self.conv(images).relu(), 2).flatten(2)  # [N,2,4]
        corners = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]) * torch.tensor([width / 2, height / 2])
        boxes = torch.cat([corners, corners + torch.tensor([width / 2, height / 2])], 1)
        labels = torch.arange(2).repeat_interleave(4)
        return [{"boxes": boxes.repeat(2, 1), "labels": labels, "scores": one.flatten()} for one in quarters]


# %%
photo = np.full((96, 96, 3), 128, np.uint8)
photo[12:36, 12:36] = (230, 40, 40)  # red, top left
photo[60:84, 56:88] = (230, 40, 40)  # red, bottom right
photo[8:40, 60:90] = (40, 40, 230)  # blue, top right


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


model = Quarters()
for box, label, score in zip(*model(to_tensor(photo)[None])[0].values(), strict=True):
    if score > 0.02:
        print(["red", "blue"][label], box.tolist(), f"{score:.2f}")

# %% [markdown]
# Explained is the detection of the class whose box meets the given one best. The other red square does not appear in
# the map of the first.

# %%
explainer = camplug.LayerCAM(model, preprocess=to_tensor)
boxes = [(10, 10, 40, 40), (50, 50, 90, 90)]
results = [explainer.explain(photo, camplug.targets.Detection(box, 0)) for box in boxes]
grid(
    photo,
    [result.maps[0].numpy() for result in results],
    ["red, top left", "red, bottom right"],
    each=[{"boxes": [box]} for box in boxes],
)
