"""A vision transformer computed step by step from the weights of timm's, for the slow references of attention methods.

Nothing of camplug is used here, and no attention of torch's: queries, keys and probabilities are written out.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import nn


def make(size=(16, 24), **options):
    """A small transformer of timm's in float64 with random weights."""
    torch.manual_seed(3)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=size, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=4, **options
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def embed(model, image):
    """The tokens [T,D] of one image [1,3,H,W]: patches after the class token."""
    x = F.conv2d(image, model.patch_embed.proj.weight, model.patch_embed.proj.bias, stride=8)[0].flatten(1).T
    if model.cls_token is not None:
        x = torch.cat([model.cls_token[0], x])
    return x + model.pos_embed[0]


def attend(attention, x):
    """(probabilities [heads,T,T], queries, keys, values [heads,T,d], output [T,D]); a leaf with a gradient."""
    heads, d = attention.num_heads, x.shape[1] // attention.num_heads
    q, k, v = F.linear(x, attention.qkv.weight, attention.qkv.bias).reshape(len(x), 3, heads, d).permute(1, 2, 0, 3)
    scores = torch.stack([q[h] @ k[h].T / d**0.5 for h in range(heads)])
    a = scores.exp() / scores.exp().sum(-1, keepdim=True)
    a.retain_grad()
    out = torch.cat([a[h] @ v[h] for h in range(heads)], 1)
    return a, q, k, v, F.linear(out, attention.proj.weight, attention.proj.bias)


def norm(layer, x):
    return F.layer_norm(x, (x.shape[1],), layer.weight, layer.bias, layer.eps)


def run_block(block, x):
    """(the block's tokens [T,D], its attention)"""
    seen = attend(block.attn, norm(block.norm1, x))
    x = x + seen[-1]
    h = F.gelu(F.linear(norm(block.norm2, x), block.mlp.fc1.weight, block.mlp.fc1.bias))
    return x + F.linear(h, block.mlp.fc2.weight, block.mlp.fc2.bias), seen


def score(model, x):
    """Logits [C] of tokens [T,D]."""
    x = norm(model.fc_norm, x.mean(0, keepdim=True)) if model.global_pool == "avg" else norm(model.norm, x)[:1]
    return F.linear(x, model.head.weight, model.head.bias)[0]


def run(model, image):
    """(logits [C], tokens after each block, attention of each block) of one image."""
    x = embed(model, image.requires_grad_())
    after, seen = [x], []
    for block in model.blocks:
        x, attention = run_block(block, x)
        after.append(x)
        seen.append(attention)
    return score(model, x), after, seen
