"""Small networks made at random: camplug equals plain autograd on every image alone, or refuses; nothing else."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from reference import FORMULAS, relative_error
from torch import nn

import camplug
from camplug.errors import CamplugError

pytestmark = pytest.mark.slow  # a long table of cases

SEEDS = range(120)
METHODS = ("gradcam", "layercam", "hirescam", "fully")


class Branches(nn.Module):
    """Two convolutions beside each other, put out as a tuple, a dict or their sum."""

    def __init__(self, width, put):
        super().__init__()
        self.a, self.b, self.put = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3, padding=1), put

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return {"sum": a + b, "tuple": (a, b), "dict": {"a": a, "b": b}}[self.put]


class Mix(nn.Module):
    """A transformer block on the positions of a map, with a class token or without."""

    def __init__(self, width, token, fused):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, width)) if token else None
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm, self.linear, self.fused = nn.LayerNorm(width), nn.Linear(width, width), fused

    def forward(self, x):
        n, _, h, w = x.shape
        t = x.flatten(2).transpose(1, 2)
        if self.token is not None:
            t = torch.cat([self.token.expand(n, -1, -1), t], 1)
        y = self.norm(t)
        t = t + self.attend(y, y, y, need_weights=not self.fused)[0]
        t = t + self.linear(t)
        return t[:, t.shape[1] - h * w :].transpose(1, 2).reshape(x.shape)


class Made(nn.Module):
    """A network of random steps over maps of `width` channels."""

    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        self.width = width = rng.choice([4, 6])
        stride = rng.choice([1, 2])
        self.stem = nn.Conv2d(3, width, 3, padding=1, stride=stride)
        shared = nn.Conv2d(width, width, 3, padding=1)
        self.steps, self.kinds = nn.ModuleList(), []
        for _ in range(rng.randint(1, 5)):
            kind = rng.choice(
                "conv conv shared relu_ add_ fold permute view sum tuple dict mix mix squeeze shuffle aside".split()
            )
            made = {"conv": lambda: nn.Conv2d(width, width, 3, padding=1), "shared": lambda: shared}
            made |= {"squeeze": lambda: nn.Conv2d(width, width, 1), "fold": lambda: nn.Conv2d(width, width, 1)}
            made |= {"permute": lambda: nn.Linear(width, width), "aside": lambda: nn.Conv2d(width, width, 1)}
            made |= {"mix": lambda: Mix(width, rng.random() < 0.5, rng.random() < 0.5)}
            made |= {put: lambda put=put: Branches(width, put) for put in ("sum", "tuple", "dict")}
            self.steps.append(made.get(kind, nn.Identity)())
            self.kinds.append(kind)
        self.act = nn.ReLU() if rng.random() < 0.7 else nn.Identity()
        self.end = rng.choice(["mean", "mean", "max", "flat"])
        self.head = nn.Linear(width * (8 // stride) ** 2 if self.end == "flat" else width, 3)

    def step(self, kind, step, x):
        n, c, h, w = x.shape
        if kind == "relu_":
            return F.leaky_relu_(x, 0.3)
        if kind == "add_":
            x += 0.5
            return x
        if kind == "fold":
            both = step(torch.stack([x, x.flip(3) * 0.7], 1).flatten(0, 1))
            return both.unflatten(0, (n, 2)).mean(1)
        if kind == "permute":
            return step(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if kind == "view":
            return x.contiguous().view(n, -1).view(n, c, h, w)
        if kind == "squeeze":
            return x * torch.sigmoid(step(x.mean((2, 3), keepdim=True)))
        if kind == "shuffle":
            return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(x.shape)
        if kind == "aside":
            step(x)
            return x
        out = step(x)
        if isinstance(out, tuple):
            return out[0] * 0.5 + out[1]
        return out["a"] + 2 * out["b"] if isinstance(out, dict) else out

    def forward(self, x):
        x = self.stem(x)
        for kind, step in zip(self.kinds, self.steps, strict=True):
            x = self.step(kind, step, x)
        x = self.act(x)
        pooled = {"mean": lambda: x.mean((2, 3)), "max": lambda: x.amax((2, 3)), "flat": lambda: x.flatten(1)}
        return self.head(pooled[self.end]())


def made(seed):
    torch.manual_seed(seed)
    model = Made(seed).double()
    for p in model.parameters():
        nn.init.normal_(p, 0, 0.4)
    return model.eval()


def alone(method, model, names, x, wanted):
    """The map of one image [1,3,H,W] by plain autograd: a textbook hook on every call of the layers."""
    model, kept = copy.deepcopy(model), []

    def hook(module, inputs, output):
        tensor = output if isinstance(output, torch.Tensor) else next(iter(getattr(output, "values", lambda: output)()))
        kept.append(tensor.clone())
        on = kept[-1].clone()
        if isinstance(output, tuple):
            return (on, *output[1:])
        return {**output, "a": on} if isinstance(output, dict) else on

    modules = dict(model.named_modules())
    for module in {id(modules[name]): modules[name] for name in names}.values():
        module.register_forward_hook(hook)
    score, total = model(x)[0, wanted], 0
    gradients = torch.autograd.grad(score, kept, allow_unused=True)  # nothing before the first layer
    pairs = [(laid(a.detach()), laid(g)) for a, g in zip(kept, gradients, strict=True) if g is not None]
    for a, g in pairs:
        one = FORMULAS[method](a, g)
        if method != "fully" and len(pairs) > 1:
            one = one / one.max() if one.max() > 0 else one
        total = total + F.interpolate(one[None, None], x.shape[2:], mode="bilinear")[0, 0]
    return total / total.max() if total.max() > 0 else total


def laid(t):
    """One image's [C,h,w] of what these networks' layers put out: maps, channels last, tokens with a class token."""
    if t.ndim == 4:
        return t[0] if t.shape[2] == t.shape[3] else t[0].permute(2, 0, 1)
    side = int((t.shape[1]) ** 0.5)
    return t[0, t.shape[1] - side * side :].T.reshape(-1, side, side)


class Several(nn.Module):
    """A network of several inputs: a vector per image comes before it, a map per image and a table after it by name."""

    def __init__(self, model):
        super().__init__()
        self.model, self.width, self.kinds = model, model.width, model.kinds

    def forward(self, vector, x, *, table, extra):
        scores = self.model(x * vector[:, :, None, None] + 0.3 * extra)
        return scores @ table


class Fixed(nn.Module):
    """`Several` on one image, its other inputs built in."""

    def __init__(self, several, vector, table, extra):
        super().__init__()
        self.model, self.given = several.model, (vector, table, extra)

    def forward(self, x):
        vector, table, extra = self.given
        return self.model(x * vector[:, :, None, None] + 0.3 * extra) @ table


@pytest.mark.parametrize("method", METHODS)
def test_networks_of_several_inputs_are_right_or_refused(method, device):
    right = 0
    for seed in SEEDS[::3]:
        model, g = made(seed), torch.Generator().manual_seed(seed)
        draw = lambda *shape, g=g: torch.randn(*shape, generator=g).double()  # noqa: E731
        x, vector, table, extra = draw(3, 3, 8, 8), draw(3, 3), draw(3, 3), draw(3, 3, 8, 8)
        several = Several(copy.deepcopy(model)).to(device)
        named = {"table": camplug.Shared(table.to(device)), "extra": extra.clone().to(device)}
        inputs = camplug.Inputs(vector.to(device), camplug.IMAGE, **named)
        explainer = camplug.create(method, several)
        try:
            got = explainer.maps(x.to(device), 1, inputs=inputs)
        except CamplugError:
            continue
        right += 1
        with explainer.tape(inputs.where) as tape:
            several(vector.to(device), x.to(device), table=table.to(device), extra=extra.to(device))
            names = list(dict.fromkeys(layer.name for layer, _ in tape.captures))
        assert torch.equal(named["extra"].cpu(), extra)
        for i in range(3):
            fixed = Fixed(Several(model), vector[i : i + 1], table, extra[i : i + 1])
            want = alone(method, fixed, names, x[i : i + 1], 1)
            assert relative_error(got[i], want) <= 1e-7, f"network {seed}, {model.kinds}, layers {names}, image {i}"
    assert right >= 0.8 * len(SEEDS[::3])


def right_or_refused(method, seed, device, pick=None):
    """Whether a network is explained; what it gives is right."""
    model = made(seed)
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    there, layers = copy.deepcopy(model).to(device), None if pick is None else pick(model)
    explainer, given = camplug.create(method, there, layers=layers), x.clone().to(device)
    try:
        got = explainer.maps(given, 1)
    except CamplugError:
        return False
    assert torch.equal(given.cpu(), x), f"network {seed} overwrote its input"
    with explainer.tape() as tape:
        there(given)
        names = list(dict.fromkeys(layer.name for layer, _ in tape.captures))
    for i in range(3):
        want = alone(method, model, names, x[i : i + 1], 1)
        assert relative_error(got[i], want) <= 1e-7, f"network {seed}, {model.kinds}, layers {names}, image {i}"
    return True


@pytest.mark.parametrize("method", METHODS)
def test_default_layers_are_right_or_refused(method, device):
    right = sum(right_or_refused(method, seed, device) for seed in SEEDS)
    assert right >= 0.8 * len(SEEDS)


@pytest.mark.parametrize("method", METHODS)
def test_any_layer_is_right_or_refused(method, device):
    def pick(model):
        names = [name for name, m in model.named_modules() if name and not isinstance(m, nn.ModuleList)]
        return random.Random(len(names)).choice(names)

    right = sum(right_or_refused(method, seed, device, pick) for seed in SEEDS)
    assert 0.4 * len(SEEDS) <= right < len(SEEDS)  # some are heads, folded batches, layers that lead to no score
