"""Small models, each awkward in one way, and the table of cases that the contract test runs every method through."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class Plain(nn.Module):
    """Two convolutions, batch normalisation, a residual sum, global average pooling, a linear head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        nn.init.uniform_(self.head.weight, -0.3, 1)  # some evidence for every class
        for bn in (self.bn1, self.bn2):
            bn.running_mean.normal_(0, 0.1)
            bn.running_var.uniform_(0.5, 1.5)

    def features(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(x + self.conv3(x))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class FeatureModule(Plain):
    """The last map comes out of a module, so that CAM and "last" can find it."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def features(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.act(x + self.conv3(x))


class InPlace(FeatureModule):
    """Every activation overwrites the tensor that a layer has just put out."""

    def __init__(self, act=None):
        super().__init__()
        self.inplace = act or (lambda t: F.relu(t, inplace=True))

    def features(self, x):
        x = self.inplace(self.conv1(x))
        x = self.inplace(self.conv2(x))
        y = self.conv3(x)
        y += x
        return self.act(self.inplace(y))


class Wrapped(nn.Module):
    """Puts the logits into something else."""

    def __init__(self, inner, how):
        super().__init__()
        self.inner = inner
        self.how = how

    def forward(self, x):
        return self.how(self.inner(x))


class Output:
    """What transformers' models return: logits as an attribute."""

    def __init__(self, logits):
        self.logits = logits


class Reused(FeatureModule):
    """One convolution called twice."""

    def features(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv3(x))
        return self.act(x + self.conv3(x))


class Unused(FeatureModule):
    """A layer that never runs, and one that runs but does not feed the score."""

    def __init__(self):
        super().__init__()
        self.never = nn.Conv2d(8, 8, 1)
        self.aside = nn.Conv2d(8, 8, 1)

    def features(self, x):
        y = super().features(x)
        self.aside(x.repeat(1, 3, 1, 1)[:, :8])
        return y


class Checkpointed(FeatureModule):
    """Activation checkpointing around the layers."""

    def features(self, x):
        def block(t):
            t = torch.relu(self.bn1(self.conv1(t)))
            return torch.relu(self.bn2(self.conv2(t)))

        x = checkpoint(block, x, use_reentrant=False)
        return checkpoint(lambda t: self.act(t + self.conv3(t)), x, use_reentrant=False)


class NoGradInside(FeatureModule):
    """Runs its own backbone without gradients, as frozen-backbone code does."""

    def features(self, x):
        with torch.no_grad():
            return super().features(x)


class Failing(FeatureModule):
    """Raises in the middle of the forward pass."""

    def features(self, x):
        self.conv1(x)
        raise ArithmeticError("broken on purpose")


class TrainOnly(FeatureModule):
    """`eval()` does nothing, as in several published networks; dropout would spoil the map."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def train(self, mode=True):
        for module in self.children():
            module.train(True)
        self.training = True

    def forward(self, x):
        return self.head(self.drop(self.features(x).mean((2, 3))))
