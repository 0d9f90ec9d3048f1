# %% [markdown]
# # A network of your own
# Any `torch.nn.Module` can be explained. This one has two filters, set by hand: one finds red, one finds blue. So it
# is known what a right map shows.

# %%
import numpy as np
import torch
from torch import nn

import camplug
from camplug.show import grid


class Colours(nn.Module):
    """Two classes, red and blue, each the mean of one feature map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 5, padding=2)
        self.head = nn.Linear(2, 2, bias=False)
        colours = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])
        self.conv.weight.data = colours[:, :, None, None].expand(2, 3, 5, 5) / 25
        self.conv.bias.data.zero_()
        self.head.weight.data = 20 * torch.eye(2)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


# %% [markdown]
# A photograph with a large red and a small blue square. A network that does not come from timm, torchvision or
# Hugging Face needs to be told how photographs become tensors, and what its classes are called.

# %%
photo = np.full((96, 160, 3), 128, np.uint8)
photo[20:76, 16:72] = (230, 40, 40)
photo[32:64, 108:140] = (40, 40, 230)


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


explainer = camplug.GradCAM(Colours(), class_names=["red", "blue"], preprocess=to_tensor)
result = explainer.explain(photo, ["red", "blue"])
result

# %% [markdown]
# Maps are found by the names of their classes; `mask` cuts them, `boxes` gives the boxes around the parts that are
# left.

# %%
for k, name in enumerate(result.names):
    print(name, f"{result.probability(k):.1%}", result.boxes(0.5)[k])

# %% [markdown]
# What speaks *against* a class is a map, too. For the difference of two classes, red speaks for the one and blue for
# the other.

# %%
rather = camplug.targets.ClassDifference(0, 1)
difference = explainer.explain(photo, rather)
against = camplug.GradCAM(explainer.model, evidence="negative", class_names=["red", "blue"], preprocess=to_tensor)
opposite = against.explain(photo, rather)
grid(photo, [difference.maps[0].numpy(), opposite.maps[0].numpy()], ["red rather than blue", "against it"])
