"""Methods that read attention, against a transformer written out step by step and loops over its tokens."""

from __future__ import annotations

import awkward
import manual_vit
import pytest
import timm
import torch
import torch.nn.functional as F
from reference import relative_error
from torch import nn

import camplug
from camplug.explain.class_tokens import multiply_by_patch_cam, refine_by_affinity
from camplug.explain.grad_eclip import grad_eclip, loosen_attention
from camplug.explain.legrad import legrad
from camplug.explain.rollout import roll_out, roll_out_gradients, weight_by_gradient

HOSTS = {
    "class token": {},
    "registers": {"reg_tokens": 2},
    "average pooling": {"class_token": False, "global_pool": "avg"},
}
CLASSES = [[0, 2], [1]]
PREFIX = {"class token": 1, "registers": 3, "average pooling": 0}


def host(name):
    return manual_vit.make(**HOSTS[name])


@pytest.fixture
def x():
    return torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(5)).double()


def finished(tokens, prefix):
    """The normalised map [16,24] of the relevance of all tokens."""
    m = F.interpolate(tokens[prefix:].detach().clamp_min(0).view(1, 1, 2, 3), (16, 24), mode="bilinear")[0, 0]
    return m / m.max() if m.max() > 0 else m


def rows_read(model):
    return range(6) if model.cls_token is None else [0]


def slow_rollout(model, image, c):
    _, _, seen = manual_vit.run(model, image)
    r = torch.eye(len(seen[0][0][0])).double()
    for a, *_ in seen:
        r = (a.mean(0) + torch.eye(len(r))) / 2 @ r
    return sum(r[i] for i in rows_read(model))


def slow_gradient_rollout(model, image, c):
    logits, _, seen = manual_vit.run(model, image)
    logits[c].backward()
    t = len(seen[0][0][0])
    r = torch.eye(t).double()
    for a, *_ in seen:
        step = torch.zeros(t, t).double()
        for h in range(len(a)):
            step += (a[h] * a.grad[h]).clamp_min(0) / len(a)
        r = r + step @ r
    return sum((r - torch.eye(t))[i] for i in rows_read(model))


def slow_legrad(model, image, c):
    _, after, _ = manual_vit.run(model, image)
    total = 0
    for block, tokens in zip(model.blocks, after, strict=False):  # each block by itself, then the head
        own, (a, *_) = manual_vit.run_block(block, tokens.detach().requires_grad_())
        mean = own.mean(0, keepdim=True)
        mean = manual_vit.norm(model.fc_norm if model.global_pool == "avg" else model.norm, mean)
        F.linear(mean, model.head.weight, model.head.bias)[0, c].backward()
        for h in range(len(a)):
            for i in range(a.shape[1]):
                total = total + a.grad[h, i].clamp_min(0)
    return total


def slow_grad_eclip(model, image, c):
    _, after, seen = manual_vit.run(model, image)
    a, q, k, v, _ = seen[-1]
    out = torch.cat([a[h] @ v[h] for h in range(2)], 1).detach().requires_grad_()  # o, before its projection
    block, attention = model.blocks[-1], model.blocks[-1].attn
    x = after[-2].detach() + F.linear(out, attention.proj.weight, attention.proj.bias)
    h = F.gelu(F.linear(manual_vit.norm(block.norm2, x), block.mlp.fc1.weight, block.mlp.fc1.bias))
    manual_vit.score(model, x + F.linear(h, block.mlp.fc2.weight, block.mlp.fc2.bias))[c].backward()
    prefix = a.shape[1] - 6
    queries, keys, values = (t.transpose(0, 1).flatten(1) for t in (q, k, v))  # heads joined
    total = torch.zeros(a.shape[1]).double()
    for i in rows_read(model):
        cosines = torch.stack([F.cosine_similarity(queries[i], keys[j], 0) for j in range(prefix, a.shape[1])])
        loose = (cosines - cosines.min()) / (cosines.max() - cosines.min())
        for j in range(6):
            total[prefix + j] += loose[j] * (out.grad[i] * values[prefix + j]).sum()
    return total


METHODS = {
    "rollout": slow_rollout,
    "gradientrollout": slow_gradient_rollout,
    "legrad": slow_legrad,
    "gradeclip": slow_grad_eclip,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["class token", "average pooling"])
def test_equals_the_slow_reference(name, method, x, device):
    model = host(name)
    got = camplug.create(method, host(name).to(device)).maps(x.to(device), CLASSES)
    for i, classes in enumerate(CLASSES):
        for k, c in enumerate(classes):
            want = finished(METHODS[method](model, x[i : i + 1].clone(), c), PREFIX[name])
            assert want.max() == 1
            assert relative_error(got[i][k], want) <= 1e-9, (i, c)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", HOSTS)
def test_forms_of_classes_and_what_is_left_behind(name, method, x):
    model = host(name).train()
    explainer = camplug.create(method, model)
    maps = explainer.maps(x, [2, 1])
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.overrides._get_current_function_mode_stack() == []
    assert maps.shape == (2, 16, 24)
    torch.testing.assert_close(maps[1:], explainer.maps(x[1:], 1))
    torch.testing.assert_close(maps[0], explainer.maps(x, lambda y: y[:, 2])[0])
    result = explainer.run(x, None)
    torch.testing.assert_close(result.logits, model.eval()(x))
    torch.testing.assert_close(torch.cat(result.maps), explainer.maps(x, result.logits.argmax(1)))
    with torch.inference_mode():
        torch.testing.assert_close(
            explainer.maps(x, [[], [0, 1]])[1], torch.cat([explainer.maps(x, c)[1:] for c in (0, 1)])
        )
    raw = explainer.without_normalization().maps(x, [2, 1])
    torch.testing.assert_close(raw / raw.amax((1, 2), keepdim=True), maps)
    half = camplug.create(method, host(name).bfloat16()).maps(x.bfloat16(), [2, 1])
    assert half.dtype == torch.float32
    assert (half - maps).abs().mean() < 0.15
    if explainer.knows_classes:
        against = camplug.create(method, model, evidence="negative").maps(x, 1)
        torch.testing.assert_close(against, explainer.maps(x, lambda y: -y[:, 1]))


@pytest.mark.parametrize("method", METHODS)
def test_the_last_layers_alone(method, x):
    model = host("class token")
    several = [camplug.create(method, model, last=last, normalize=None).maps(x, 1) for last in (1, 2, 3, 9)]
    assert not torch.allclose(several[0], several[1])
    torch.testing.assert_close(several[2], several[3])
    with pytest.raises(camplug.InputError, match="last=0; give a whole number of attention layers"):
        camplug.create(method, model, last=0)


def test_attention_pooling_is_read_by_its_own_query(x):
    """SigLIP's head: a learned query attends to the patches; for LeGrad once per layer."""
    model = manual_vit.make(class_token=False, global_pool="map")
    with camplug.Tape(model, (), attention=True) as tape:
        logits, parts = model(x), []
        attentions = [c.probabilities.mean(1) for c in tape.attention]
        tape.backward(logits[:, 1], lambda layer, a, g: parts.insert(0, weight_by_gradient(a, g)))
    rolled = attentions[3] @ roll_out(attentions[:3])
    chained = parts[3] @ (roll_out_gradients(parts[:3]) + torch.eye(6))
    for method, rows in {"rollout": rolled, "gradientrollout": chained}.items():
        want = torch.stack([finished(rows[i, 0], 0) for i in range(2)])
        torch.testing.assert_close(camplug.create(method, model).maps(x, 1), want)
    total = 0
    tokens = [t.detach() for t in block_outputs(model, x)]
    for one in tokens:
        with camplug.Tape(model.attn_pool, (), attention=True) as tape:
            y = model.head(model.fc_norm(model.attn_pool(model.norm(one))))
            tape.backward(y[:, 1], lambda layer, a, g: parts.append(g))
        total = total + parts.pop().clamp_min(0).sum((1, 2))
    want = torch.stack([finished(total[i], 0) for i in range(2)])
    torch.testing.assert_close(camplug.LeGrad(model).maps(x, 1), want)


def block_outputs(model, x):
    with camplug.Tape(model, [f"blocks.{i}" for i in range(3)]) as tape:
        model(x)
        return [tape[f"blocks.{i}"] for i in range(3)]


class OwnTokens(nn.Module):
    """As in MCTformer: a token per class, whose mean is the class's score."""

    def __init__(self, classes=3, shared=False):
        super().__init__()
        body = manual_vit.make(class_token=False, global_pool="avg")
        self.patch_embed, self.blocks, self.shared = body.patch_embed, body.blocks, shared
        self.tokens = nn.Parameter(torch.randn(1, classes, 12).double())
        self.num_prefix_tokens = classes

    def forward(self, x):
        x = torch.cat([self.tokens.expand(len(x), -1, -1), self.patch_embed(x)], 1)
        x = self.blocks(x)[:, : self.tokens.shape[1]]
        return x[:, 0, :3] if self.shared else x.mean(2)


def test_class_tokens_equal_the_slow_reference(x):
    model = OwnTokens().eval()
    got = camplug.ClassTokenAttention(model, last=2).maps(x, CLASSES)
    for i, classes in enumerate(CLASSES):
        tokens, seen = torch.cat([model.tokens[0], model.patch_embed(x[i : i + 1])[0]]), []
        for block in model.blocks:
            tokens, (a, *_) = manual_vit.run_block(block, tokens)
            seen.append(a.detach())
        for k, c in enumerate(classes):
            own = sum(a[h, c, 3:] for a in seen[1:] for h in range(2))
            want = torch.zeros(6).double()
            for a in seen:
                for h in range(2):
                    for p in range(6):
                        want[p] += (a[h, 3 + p, 3:] * own).sum()
            assert relative_error(got[i][k], finished(want, 0)) <= 1e-9


class BothHeads(OwnTokens):
    """As in MCTformer-V2: the patches are classified by a convolution, too."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(12, 3, 3, padding=1).double()

    def forward(self, x):
        y = self.blocks(torch.cat([self.tokens.expand(len(x), -1, -1), self.patch_embed(x)], 1))
        cam = self.head(y[:, 3:].transpose(1, 2).unflatten(2, (2, 3)))
        return y[:, :3].mean(2), cam.mean((2, 3))


@pytest.mark.parametrize("root", [False, True])
def test_class_tokens_times_the_class_map_of_the_patches(x, root):
    torch.manual_seed(3)
    model, maps = BothHeads().eval(), []
    got = camplug.ClassTokenAttention(model, last=2, patch_cam="head", root=root).maps(x, CLASSES)
    model.head.register_forward_hook(lambda module, args, out: maps.append(out.detach()))
    model(x)
    for i, classes in enumerate(CLASSES):
        tokens, seen = torch.cat([model.tokens[0], model.patch_embed(x[i : i + 1])[0]]), []
        for block in model.blocks:
            tokens, (a, *_) = manual_vit.run_block(block, tokens)
            seen.append(a.detach())
        for k, c in enumerate(classes):
            fused, want = torch.zeros(6).double(), torch.zeros(6).double()
            for q in range(6):
                own = sum(float(a[h, c, 3 + q]) for a in seen[1:] for h in range(2))
                fused[q] = own * max(float(maps[0][i, c, q // 3, q % 3]), 0)
                fused[q] = fused[q] ** 0.5 if root else fused[q]
            for a in seen:
                for h in range(2):
                    for p in range(6):
                        want[p] += sum(a[h, 3 + p, 3 + q] * fused[q] for q in range(6))
            assert want.max() > 0
            assert relative_error(got[i][k], finished(want, 0)) <= 1e-9


def test_refusals_of_class_maps_of_patches(x):
    model = BothHeads().eval()
    for layer, said in {
        "patch_embed": r"'patch_embed' puts out \[2, 6, 12\], which is no class map \[N,C,2,3\] of the patches",
        "haed": "has no layer named 'haed'; did you mean 'head'",
    }.items():
        with pytest.raises(camplug.LayerError, match=said):
            camplug.ClassTokenAttention(model, patch_cam=layer).maps(x, 1)
    with pytest.raises(camplug.LayerError, match="give a class, not a callable"):
        camplug.ClassTokenAttention(model, patch_cam="head").maps(x, lambda y: y[0][:, 1])
    with pytest.raises(camplug.InputError, match="give its layer with patch_cam="):
        camplug.ClassTokenAttention(model, root=True)
    with pytest.raises(camplug.InputError, match="has no sign"):
        camplug.ClassTokenAttention(model, evidence="negative")


def test_class_tokens_of_other_transformers_are_refused(x):
    for model, found in ((host("class token"), 1), (OwnTokens(shared=True).eval(), 3), (host("average pooling"), 0)):
        said = rf"a token of its own for every class \(MCTformer\), and this \w+ has {found} tokens? besides"
        with pytest.raises(camplug.LayerError, match=said):
            camplug.ClassTokenAttention(model).maps(x, 1)
    with pytest.raises(camplug.LayerError, match="this score reads several tokens; give a class"):
        camplug.ClassTokenAttention(OwnTokens().eval()).maps(x, lambda y: y[:, 0] + y[:, 1])


def test_golden_numbers():
    a = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]]]])  # two heads, one query
    g = torch.tensor([[[[2.0, -1.0]], [[-4.0, 6.0]]]])
    torch.testing.assert_close(weight_by_gradient(a, g), torch.tensor([[[1.0, 1.5]]]))
    torch.testing.assert_close(legrad(g), torch.tensor([[1.0, 3.0]]))
    torch.testing.assert_close(grad_eclip(g, torch.tensor([[[1.0, 0.5]]])), torch.tensor([[0.0, 2.5]]))
    q, k = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 3.0], [-5.0, 0.0]]])
    torch.testing.assert_close(loosen_attention(q, k), torch.tensor([[[1.0, 0.5, 0.0]]]))
    assert loosen_attention(q, k[:, :1]).abs().max() == 0
    p = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    a, cam = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[8.0, -1.0, 4.0]])
    torch.testing.assert_close(multiply_by_patch_cam(a, cam), torch.tensor([[4.0, 0.0, 1.0]]))
    torch.testing.assert_close(multiply_by_patch_cam(a, cam, root=True), torch.tensor([[2.0, 0.0, 1.0]]))
    torch.testing.assert_close(refine_by_affinity(torch.tensor([[2.0, 4.0]]), p), torch.tensor([[3.0, 4.0]]))


class Elsewhere(nn.Module):
    """Adds tokens after the blocks, one for each image that came in."""

    def __init__(self):
        super().__init__()
        self.body = manual_vit.make(class_token=False, global_pool="avg")

    def forward(self, x):
        tokens = self.body.blocks(self.body.patch_embed(x))
        return torch.cat([tokens, tokens.new_zeros(len(x), 1, 12)], 1).mean(1)


REFUSED = {
    "cnn": (lambda: awkward.FeatureModule().double(), "{} reads the attention of transformers, and this FeatureModule"),
    "windows": (
        lambda: timm.models.swin_transformer.SwinTransformer(
            img_size=(16, 24), patch_size=4, window_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), num_classes=4
        ).double(),
        "is computed within parts of an image, and {} reads attention between all tokens; take GradCAM",
    ),
    "fewer keys": (
        lambda: timm.models.pvt_v2.PyramidVisionTransformerV2(
            embed_dims=(8, 8), depths=(1, 1), num_heads=(2, 2), sr_ratios=(2, 1), mlp_ratios=(1, 1), num_classes=4
        ).double(),
        r"is not always over the same tokens \(queries and keys: .*\), so {} cannot follow it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", [*METHODS, "classtoken"])
def test_networks_without_attention_between_all_tokens_are_refused(method, name):
    make, said = REFUSED[name]
    explainer = camplug.create(method, make().eval())
    with pytest.raises(camplug.LayerError, match=said.format(type(explainer).__name__)) as error:
        explainer.maps(
            torch.randn(1, 3, 32, 32).double() if name == "fewer keys" else torch.randn(1, 3, 16, 24).double(), 1
        )
    assert "\n" not in str(error.value)


def test_heads_that_talk_to_each_other_are_refused(x):
    model = host("class token")
    for block in model.blocks:
        block.attn.fused_attn, block.attn.attn_drop = False, nn.Conv2d(2, 2, 1).double()
    with pytest.raises(camplug.LayerError, match="changes attention probabilities before it uses them"):
        camplug.LeGrad(model).maps(x, 1)


def test_legrad_of_a_network_that_counts_its_images(x):
    model = Elsewhere().eval()
    with pytest.raises(camplug.LayerError, match="does not take a batch of another size there; take GradientRollout"):
        camplug.LeGrad(model).maps(x, 1)
    assert camplug.GradientRollout(model).maps(x, 1).max() == 1
