"""Maps of a network as built and of its dense form, and the values that the two share."""

from __future__ import annotations

import torch
from reference import relative_error
from torch import nn
from wrapped import same

from camplug.plug import dense


def lively(model, seed=0):
    """No weight that networks start at zero with (a residual branch, a layer scale) may hide its branch."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or not parameter.any():
            values = torch.rand(parameter.shape, generator=random)
            parameter.data = values - 0.5 if "bias" in name else values + 0.5
    return model.double().eval()


def net(*layers, device="cpu"):
    return lively(nn.Sequential(*layers)).to(device)


def picture(*size, device="cpu"):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).to(device, torch.float64)


@torch.no_grad()
def map_of(model, x, layer=None):
    """What a layer puts out (default: the model), found with a plain hook."""
    kept = []
    handle = (model if layer is None else model.get_submodule(layer)).register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    assert model(x).isfinite().all()
    handle.remove()
    return kept[-1]


def starts(fine, built, finer):
    """Where the map as built begins in the finer one, every `finer`-th position: all (top, left) that fit to 1e-9."""
    down, across = finer if isinstance(finer, tuple) else (finer, finer)
    found = []
    for top in range(down):
        for left in range(across):
            some = fine[:, :, top::down, left::across][:, :, : built.shape[2], : built.shape[3]]
            if some.shape == built.shape and relative_error(some, built) < 1e-9:
                found.append((top, left))
    return found


def holds_every_value(model, x, output_stride, finer, layer=None, start=(0, 0)):
    built = map_of(model, x, layer)
    with dense(model, output_stride, example=x):
        fine = map_of(model, x, layer)
    assert fine.device == x.device
    for got, was in zip(fine.shape[2:], built.shape[2:], strict=True):
        assert (was - 1) * finer + 1 <= got <= was * finer
    assert starts(fine, built, finer) == [start]
    assert same(map_of(model, x, layer), built)
    return fine


@torch.no_grad()
def dense_and_built(model, x, output_stride=1):
    built = model(x)
    with dense(model, output_stride, example=x):
        return model(x), built
