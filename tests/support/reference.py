"""An independent slow reference: textbook hooks, one image, one class, the formulas written out in loops.

Nothing of camplug is used here, and no GPU: whatever it is given, it computes on the CPU in float64. A hook clones the
layer's output, keeps the clone's gradient and hands another clone on, so that no in-place operation can reach it; one
full backward pass; plain sums over channels.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F


def record(model, layers, x, score):
    """[(activation, gradient)] of every call of the named layers, in call order, for one image."""
    model = copy.deepcopy(model).to("cpu", torch.float64).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    modules = dict(model.named_modules())
    kept = []

    def hook(module, inputs, output):
        tensor = output if isinstance(output, torch.Tensor) else output[0]
        kept.append(tensor.clone())
        kept[-1].retain_grad()
        on = kept[-1].clone()
        if isinstance(output, dict):  # of transformers
            return type(output)(**{**output, next(iter(output)): on})
        return (on, *output[1:]) if isinstance(output, tuple) else on

    for name in layers:
        modules[name].register_forward_hook(hook)
    output = model(x.to("cpu", torch.float64))
    score(output).sum().backward()
    return [(a.detach(), a.grad) for a in kept if a.grad is not None], output


def grad_cam(a, g):
    total = torch.zeros_like(a[0])
    for k in range(len(a)):
        total += g[k].mean() * a[k]
    return total.relu()


def grad_cam_pp(a, g):
    total = torch.zeros_like(a[0])
    for k in range(len(a)):
        denominator = 2 * g[k] ** 2 + a[k].sum() * g[k] ** 3
        alpha = torch.where(denominator != 0, g[k] ** 2 / denominator, torch.zeros_like(denominator))
        total += (alpha * g[k].relu()).sum() * a[k]
    return total.relu()


def xgrad_cam(a, g):
    total = torch.zeros_like(a[0])
    for k in range(len(a)):
        if a[k].sum() != 0:
            total += ((a[k] / a[k].sum()) * g[k]).sum() * a[k]
    return total.relu()


def layer_cam(a, g):
    return sum(g[k].relu() * a[k] for k in range(len(a))).relu()


def hires_cam(a, g):
    return sum(g[k] * a[k] for k in range(len(a))).relu()


def eigen_cam(a, g):
    o = a.flatten(1).T
    projection = o @ torch.linalg.svd(o, full_matrices=False).Vh[0]
    return (projection * projection.sum().sign()).relu().view(a.shape[1:])


def fully_cam(a, g, channel_norm=True):
    total = torch.zeros_like(a[0])
    for k in range(len(a)):
        m = a[k].relu() * g[k].relu()
        if not channel_norm:
            total += m
        elif m.max() > 0:
            total += m / m.max()
    return total


FORMULAS = {
    "gradcam": grad_cam,
    "gradcam++": grad_cam_pp,
    "xgradcam": xgrad_cam,
    "layercam": layer_cam,
    "hirescam": hires_cam,
    "eigencam": eigen_cam,
    "fully": fully_cam,
}


def reference_map(method, model, layers, x, score, size=None, grid=lambda t: t, **options):
    """The normalised map [h,w] of one image x [1,3,H,W], in float64."""
    records, _ = record(model, layers, x, score)
    maps = [FORMULAS[method](grid(a)[0], grid(g)[0], **options) for a, g in records]
    if method != "fully" and len(maps) > 1:
        maps = [m / m.max() if m.max() > 0 else m for m in maps]
    size = tuple(size or x.shape[2:])
    total = sum(F.interpolate(m[None, None], size, mode="bilinear", align_corners=False)[0, 0] for m in maps)
    return total / total.max() if total.max() > 0 else total


def reference_cam(features, weights, size):
    """CAM from the pooled map [K,h,w] and the head's weights [K] of one class."""
    weights = weights.detach().to(features)
    total = sum(weights[k] * features[k] for k in range(len(weights))).relu()
    total = F.interpolate(total[None, None], tuple(size), mode="bilinear", align_corners=False)[0, 0]
    return total / total.max() if total.max() > 0 else total


def relative_error(got, want):
    """Largest difference, relative to the largest value of the reference; either may be on a GPU."""
    got, want = (t.to("cpu", torch.float64) for t in (got, want))
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-30))
