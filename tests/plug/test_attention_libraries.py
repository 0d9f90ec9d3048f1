"""Attention of Hugging Face and open_clip models, where these libraries are installed: random weights, tiny sizes."""

from __future__ import annotations

import copy

import pytest
import torch

import camplug

CLOSE = {"rtol": 0, "atol": 1e-10}
SINGLE = {"rtol": 1e-4, "atol": 1e-4}  # eager attention of transformers has its softmax in float32


def run(model, x, score):
    """(attention, gradients by layer) of a model in float64."""
    gradients = {}
    with camplug.Tape(model, (), attention=True) as tape:
        output = model(x)
        calls = tape.attention
        assert tape.unread_attention == 0
        tape.backward(score(output), lambda layer, a, g: gradients.update({layer: g.clone()}))
    return calls, gradients


@pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
@pytest.mark.parametrize("way", ["sdpa", "eager"])
def test_hugging_face(kind, way):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    make = getattr(transformers, f"{kind}ForImageClassification")._from_config
    eager = make(copy.deepcopy(config), attn_implementation="eager").double().eval()
    model = make(config, attn_implementation=way).double().eval()
    model.load_state_dict(eager.state_dict())
    x = torch.randn(2, 3, 16, 16).double()
    want = eager(x, output_attentions=True).attentions
    calls, gradients = run(model, x, lambda output: output.logits[:, 1])
    assert [c.probabilities.shape for c in calls] == [(2, 2, 5, 5)] * 2
    for call, one in zip(calls, want, strict=True):
        torch.testing.assert_close(call.probabilities, one.detach(), **SINGLE)
        assert gradients[call.layer].abs().max() > 0
    for method in ("legrad", "gradientrollout", "gradeclip", "rollout"):
        maps = camplug.create(method, model).maps(x, 1)
        torch.testing.assert_close(maps, camplug.create(method, eager).maps(x, 1), **SINGLE)


def test_open_clip():
    tower = pytest.importorskip("open_clip.transformer").VisionTransformer
    torch.manual_seed(0)
    model = tower(image_size=16, patch_size=8, width=16, layers=2, heads=2, mlp_ratio=2, output_dim=3).double().eval()
    x, told = torch.randn(2, 3, 16, 16).double(), []
    calls, gradients = run(model, x, lambda output: output[:, 1])
    for block in model.transformer.resblocks:
        plain = block.attn.forward

        def forward(*args, plain=plain, **kwargs):
            output, weights = plain(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            told.append(weights.detach())
            return output, weights

        block.attn.forward = forward
    model(x)
    for call, want in zip(calls, told, strict=True):
        torch.testing.assert_close(call.probabilities, want, **CLOSE)
        assert gradients[call.layer].abs().max() > 0
    assert camplug.LeGrad(model).maps(x, 1).max() == 1
