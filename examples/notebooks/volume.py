# %% [markdown]
# # A volume
# Methods that read layers explain networks of `nn.Conv3d` (CT, MRI, video) and `nn.Conv1d` (signals) as they are: the
# maps of [N,C,D,H,W] are [N,D,H,W].

# %%
import numpy as np
import torch
from PIL import Image
from torch import nn

import camplug
from camplug.show import overlay

torch.manual_seed(0)
scan = 0.1 * torch.rand(1, 1, 24, 48, 48)
scan[:, :, 8:16, 10:22, 26:38] += 0.8  # a bright cube


class Bright(nn.Module):
    """One class: how much of a volume is bright."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2))
        self.features[0].weight.data.fill_(1 / 27)
        self.features[0].bias.data.fill_(-0.3)
        self.head = nn.Linear(4, 2)
        self.head.weight.data = torch.tensor([[-1.0], [1.0]]).expand(2, 4).clone()

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3, 4)))


heat = camplug.GradCAM(Bright()).maps(scan, 1)
tuple(heat.shape)

# %% [markdown]
# Four slices, with the map over each:

# %%
slices = [4, 9, 12, 20]
pictures = [np.repeat((scan[0, 0, d].clamp(0, 1) * 255).byte().numpy()[..., None], 3, 2) for d in slices]
overlays = [overlay(p, heat[0, d].numpy(), bar=False) for p, d in zip(pictures, slices, strict=True)]
row = Image.fromarray(np.concatenate([np.asarray(overlay) for overlay in overlays], 1))
row.resize((3 * row.width, 3 * row.height), Image.Resampling.NEAREST)

# %%
cube = torch.zeros_like(heat, dtype=torch.bool)
cube[:, 8:16, 10:22, 26:38] = True
print(f"mean of the map in the cube {heat[cube].mean():.2f}, elsewhere {heat[~cube].mean():.3f}")
