"""Any module works: a two-branch network of one's own, its own class names, its own preprocessing."""

import numpy as np
import torch
from torch import nn

import camplug


class TwoBranches(nn.Module):
    """Looks at the picture through two convolutions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 16, 3, padding=1)
        self.coarse = nn.Conv2d(3, 16, 9, padding=4, stride=4)
        self.head = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        pooled = [branch(x).relu().mean((2, 3)) for branch in (self.fine, self.coarse)]
        return {"logits": self.head(torch.cat(pooled, 1)), "features": torch.cat(pooled, 1)}


def to_tensor(photo) -> torch.Tensor:
    return torch.from_numpy(np.array(photo.resize((96, 64)))).permute(2, 0, 1).float() / 255


torch.manual_seed(0)
photo = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
explainer = camplug.FullyCAM(TwoBranches(), class_names=["smooth", "rough"], preprocess=to_tensor)
result = explainer.explain(photo, ["smooth", "rough"])
print(result.names, tuple(result.maps.shape))

# any score that can be computed from the output: here, what tells the two classes apart
contrast = explainer.explain(photo, lambda output: output["logits"][:, 1] - output["logits"][:, 0])
print(contrast.names, float(contrast.maps.max()))
