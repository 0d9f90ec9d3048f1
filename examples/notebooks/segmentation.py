# %% [markdown]
# # A segmentation network
# Why is this region called a lake? `camplug.targets.Region` explains the mean score of a class over a region of the
# network's output [N,C,h,w]. The network here is made by hand: a position is *shore* if there is blue around it, and
# it is green itself.

# %%
import numpy as np
import torch
from torch import nn

import camplug
from camplug.show.labels import overlay_labels


class Shores(nn.Module):
    """Scores for land, water and shore."""

    def __init__(self):
        super().__init__()
        self.colours = nn.Conv2d(3, 2, 1, bias=False)  # green, blue
        self.colours.weight.data = torch.tensor([[-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])[:, :, None, None]
        self.around = nn.AvgPool2d(33, 1, 16, count_include_pad=False)

    def forward(self, x):
        green, blue = self.colours(x).relu().unbind(1)
        near = self.around(blue[:, None])[:, 0]
        return torch.stack([green, blue, 30 * green * near], 1)


photo = np.zeros((192, 288, 3), np.uint8)
photo[...] = (30, 120, 40)
photo[60:132, 80:160] = (30, 40, 130)
photo[80:112, 230:262] = (30, 40, 130)


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


model = Shores()
predicted = model(to_tensor(photo)[None])[0].argmax(0).byte().numpy()
overlay_labels(photo, predicted, ["water", "shore"])

# %% [markdown]
# Without a mask the region is wherever the class is predicted; here it is the shore around the left lake alone. Its
# map holds the shore itself *and* the water beside it, which made it shore; the other lake has no part in it.

# %%
left = torch.zeros(192, 288, dtype=torch.bool)
left[:, :200] = True
region = torch.from_numpy(predicted == 2) & left
result = camplug.HiResCAM(model, "colours", preprocess=to_tensor).explain(photo, camplug.targets.Region(2, region))
result.overlay()

# %%
heat = result.maps[0]
for name, place in (("left lake", (slice(60, 132), slice(80, 160))), ("right lake", (slice(80, 112), slice(230, 262)))):
    print(name, f"{heat[place].max():.2f}")
