"""Attention on the tape: probabilities, values and gradients equal a transformer written out step by step."""

from __future__ import annotations

import math
import threading

import awkward
import manual_vit
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import camplug
from camplug.plug.attention import attend

CLOSE = {"rtol": 0, "atol": 1e-12}


def blind(t, s):
    """A mask that leaves the second query without a key."""
    mask = torch.rand(t, s, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[1] = False
    return mask


FUSED = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "bool mask": {"attn_mask": blind(5, 7)},
    "float mask": {"attn_mask": torch.randn(5, 7, generator=torch.Generator().manual_seed(2)).double()},
    "masked everywhere": {"attn_mask": torch.zeros(5, 7).double().masked_fill(~blind(5, 7), -math.inf)},
    "grouped": {"enable_gqa": True},
}


@pytest.mark.parametrize("name", FUSED)
def test_explicit_attention_equals_torchs(name, device):
    options = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in FUSED[name].items()}
    heads = 2 if name == "grouped" else 4
    q, k, v = (torch.randn(2, h, n, 6).to(device, torch.float64) for h, n in ((4, 5), (heads, 7), (heads, 7)))
    seen = []

    def read(*tensors):
        seen.append(tensors)
        return tensors[0]

    want = F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(attend(q, k, v, read=read, **options), want, **CLOSE)
    assert seen[0][0].shape == (2, 4, 5, 7)


def fused(model):
    return model


def stepwise(model):
    """timm's own computation: softmax, dropout and a matrix product."""
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def rewritten(model):
    """Attention by einsum."""

    def forward(self, x, **_):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        a = F.softmax(torch.einsum("nhtd,nhsd->nhts", q * self.scale, k), dim=3)
        return self.proj(torch.einsum("nhts,nhsd->nhtd", a, v).transpose(1, 2).reshape(n, t, -1))

    for block in model.blocks:
        block.attn.forward = forward.__get__(block.attn)
    return model


def checkpointed(model):
    model.set_grad_checkpointing()
    return model


HOSTS = {"fused": fused, "stepwise": stepwise, "einsum": rewritten, "checkpointed": checkpointed}


@pytest.mark.parametrize("host", HOSTS)
def test_probabilities_and_gradients_equal_the_written_out_transformer(host, device):
    model = manual_vit.make()
    x = torch.randn(2, 3, 16, 24).double()
    want = []
    for image in x.split(1):
        logits, _, seen = manual_vit.run(model, image)
        logits[2].backward()
        want.append(seen)
    model = HOSTS[host](manual_vit.make()).to(device)
    plain = model(x.to(device)).detach()
    found = []
    with camplug.Tape(model, (), attention=True) as tape:
        logits = model(x.to(device))
        torch.testing.assert_close(logits.detach(), plain, **CLOSE)
        calls = tape.attention
        assert tape.unread_attention == 0
        tape.backward(logits[:, 2], lambda layer, a, g: found.append((layer, a.cpu(), g.cpu())))
    assert [str(layer) for layer, *_ in found] == [f"blocks.{i}.attn (attention)" for i in (2, 1, 0)]
    assert [c.layer for c in calls] == [layer for layer, *_ in reversed(found)]
    for b, (call, (_, a, g)) in enumerate(zip(calls, reversed(found), strict=True)):
        torch.testing.assert_close(a, torch.stack([seen[b][0].detach() for seen in want]), **CLOSE)
        torch.testing.assert_close(g, torch.stack([seen[b][0].grad for seen in want]), **CLOSE)
        values = torch.stack([seen[b][3].detach() for seen in want])
        torch.testing.assert_close(call.inputs.value.cpu(), values, **CLOSE)
        torch.testing.assert_close(call.weighted.cpu(), a * values.pow(2).sum(-1).sqrt()[:, :, None], **CLOSE)
        if host != "einsum":
            cosines = [F.cosine_similarity(q[:, :, None], k[:, None], dim=-1) for _, q, k, *_ in (s[b] for s in want)]
            got = F.cosine_similarity(call.inputs.query[:, :, :, None], call.inputs.key[:, :, None], dim=-1)
            torch.testing.assert_close(got.cpu(), torch.stack(cosines).detach(), **CLOSE)


class WithWeights(nn.MultiheadAttention):
    """Asks for the weights, so that torch takes the way without fused attention."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})


@pytest.mark.parametrize("weights", [False, True])
def test_torchvisions_transformer(weights, device):
    torch.manual_seed(0)
    model = torchvision.models.vision_transformer.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=5).double().eval()
    nn.init.normal_(model.heads[-1].weight)
    model, x, told = model.to(device), torch.randn(2, 3, 32, 32).to(device, torch.float64), []
    for layer in model.encoder.layers:
        layer.self_attention.__class__ = WithWeights
        layer.self_attention.register_forward_hook(lambda module, given, output: told.append(output[1].detach()))
    plain = model(x).detach()
    want, before = list(told), list(told)
    if not weights:
        for layer in model.encoder.layers:
            layer.self_attention.__class__ = nn.MultiheadAttention
            layer.self_attention._forward_hooks.clear()
    gradients = {}
    with camplug.Tape(model, (), attention=True) as tape:
        logits = model(x)
        calls = tape.attention
        for layer, _, gradient in tape.gradients(logits[:, 1]):
            gradients[layer.name] = gradient.clone()
    torch.testing.assert_close(logits.detach(), plain, **CLOSE)
    assert [c.layer.name for c in calls] == [f"encoder.layers.encoder_layer_{i}.self_attention" for i in (0, 1)]
    assert len(before) == len(calls)
    for call, one in zip(calls, want, strict=True):
        torch.testing.assert_close(call.probabilities, one, **CLOSE)
        assert gradients[call.layer.name].abs().max() > 0


def test_layers_and_attention_on_one_tape():
    model, x = manual_vit.make(), torch.randn(1, 3, 16, 24).double()
    with camplug.Tape(model, ["blocks.1", "blocks.1.attn"], attention=True) as tape:
        model(x)
        parts = [(layer.name, layer.part) for layer, _ in tape.captures]
        assert tape["blocks.1.attn"].shape == (1, 7, 12)
    assert parts == [
        ("blocks.0.attn", "attention"),
        ("blocks.1.attn", "attention"),
        ("blocks.1.attn", "output"),
        ("blocks.1", "output"),
        ("blocks.2.attn", "attention"),
    ]


def test_fused_attention_is_back_after_the_block_and_after_an_exception():
    model, x = manual_vit.make(), torch.randn(1, 3, 16, 24).double()
    plain = F.scaled_dot_product_attention
    tape = camplug.Tape(model, (), attention=True)

    def fail():
        with tape:
            model(x)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    broken = awkward.Wrapped(model, lambda y: 1 // 0)
    with pytest.raises(ZeroDivisionError), camplug.Tape(broken, (), attention=True):
        broken(x)
    assert F.scaled_dot_product_attention is plain
    assert torch.overrides._get_current_function_mode_stack() == []
    assert tape.attention == []
    with camplug.Tape(model, "last", forward_only=True) as other:
        model(x)
        assert other.attention == []


def test_other_threads_keep_their_attention():
    model, x = manual_vit.make(), torch.randn(1, 3, 16, 24).double()
    modes = []
    with camplug.Tape(model, (), attention=True) as tape:

        def work():
            model(x)
            modes.append(len(torch.overrides._get_current_function_mode_stack()))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert modes == [0]
        assert tape.attention == []
        model(x)
        assert len(tape.attention) == 3


def test_probabilities_that_are_changed_before_use_are_counted():
    model, x = stepwise(manual_vit.make()), torch.randn(1, 3, 16, 24).double()
    for block in model.blocks[1:]:
        block.attn.attn_drop = nn.Linear(7, 7).double()  # mixes the keys
    with camplug.Tape(model, (), attention=True, forward_only=True) as tape:
        model(x)
        assert [c.layer.name for c in tape.attention] == ["blocks.0.attn"]
        assert tape.unread_attention == 2


def test_a_network_without_attention():
    model, x = awkward.FeatureModule().eval(), torch.randn(1, 3, 12, 12)
    with camplug.Tape(model, (), attention=True) as tape:
        y = model(x)
        assert tape.attention == []
        with pytest.raises(camplug.LayerError, match=r"none of the wanted layers \(attention\) ran"):
            tape.backward(y[:, 0], lambda *_: None)


def test_attention_in_training_keeps_the_graph():
    model, x = manual_vit.make(attn_drop_rate=0.5).train(), torch.randn(1, 3, 16, 24).double()
    with camplug.Tape(model, (), grad=True, attention=True) as tape:
        model(x)
        tape.attention[0].probabilities.pow(2).sum().backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().max() > 0
    assert model.blocks[1].attn.qkv.weight.grad is None
