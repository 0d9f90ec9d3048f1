# %% [markdown]
# # Is a map trustworthy?
# A map always looks convincing. `check` asks whether the model used what the map shows, against the same map at
# random places, and gives a verdict with its reasons. The network here finds red and blue by filters set by hand, so
# it is known what a right map shows.

# %%
import numpy as np
import torch
from torch import nn

import camplug
from camplug.trust import Settings, Trust, check

model = nn.Sequential(
    nn.Conv2d(3, 2, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
).eval()
colours = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])
model[0].weight.data = colours[:, :, None, None].expand(2, 3, 5, 5) / 25
model[4].weight.data = 30 * torch.eye(2)
model[0].bias.data.fill_(-0.2)  # pale colours do not count
model[4].bias.data.zero_()

photo = np.full((64, 96, 3), 128, np.uint8)
photo[8:40, 8:40] = (230, 40, 40)
photo[36:60, 60:90] = (40, 40, 230)


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


options = {"class_names": ["red", "blue"], "preprocess": to_tensor}
report = check(camplug.CAM(model, **options), photo, "red", steps=8)
print(report.verdict)
for reason in [*report.reasons, *report.warnings]:
    print("-", reason)

# %%
report.picture()

# %% [markdown]
# A map that does not depend on the model is found out. This one is bright in the middle, whatever the model says:


# %%
class Middle(camplug.ImageExplainer):
    """A bright spot in the middle."""

    def explain_image(self, image, targets, scores):
        y, x = (torch.linspace(-1, 1, n) for n in image.size)
        return (-4 * (y[:, None] ** 2 + x**2)).exp().expand(len(scores), -1, -1)


found = check(Middle(model, **options), photo, "red", steps=8)
print(found.verdict)
for reason in found.reasons:
    print("-", reason)

# %% [markdown]
# Over many images, `Trust` gives means with confidence intervals, of several explainers beside each other. A good map
# lowers the probability soon while its largest values are deleted, and raises it soon while they are inserted:

# %%
x = torch.stack([to_tensor(np.roll(photo, shift, 1)) for shift in (0, 5, 30, 50)])
trust = Trust([camplug.CAM(model), Middle(model)], ("deletion", "insertion", "sparseness"), Settings(steps=20))
for name, metrics in trust.add(x, 0).compute().items():
    print(
        name,
        ", ".join(
            f"{metric} {value.mean:.2f} ({value.low:.2f} to {value.high:.2f})" for metric, value in metrics.items()
        ),
    )
