"""Classifiers whose classes are texts, against the models' own logits."""

from __future__ import annotations

import hosts
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import camplug
from camplug import Prompts
from camplug.errors import InputError, ModelError
from camplug.models.towers import embed_texts

NAMES = ["a dog", "a cat", "grass"]
HF = ["hf CLIPModel", "hf SiglipModel", "hf ChineseCLIPModel", "hf MetaClip2Model"]


def build(title):
    pytest.importorskip("transformers" if title.startswith("hf") else "open_clip")
    return hosts.make_host(title)


@pytest.fixture
def clip():
    return build("hf CLIPModel")


def images(n=2, side=64):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("title", HF)
def test_logits_of_hugging_face(title):
    model, x = build(title), images()
    expected = model(input_ids=hosts.tokenize(NAMES), pixel_values=x).logits_per_image
    found = Prompts(model, NAMES[:2], background=NAMES[2:], tokenizer=hosts.tokenize, softmax=False)
    torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-5)
    assert found.multi_label == ("Siglip" in title)
    probabilities = Prompts(model, NAMES, tokenizer=hosts.tokenize)(x)
    torch.testing.assert_close(probabilities, expected.softmax(1), rtol=1e-4, atol=1e-5)


def test_logits_of_open_clip():
    model, x = build("open_clip ViT"), images()
    found = Prompts(model, NAMES, softmax=False)
    import open_clip

    numbers = open_clip.tokenizer.SimpleTokenizer(context_length=16)(NAMES)
    seen, read, scale = model(x, numbers)
    torch.testing.assert_close(found(x), scale * seen @ read.T, rtol=1e-4, atol=1e-5)


def test_templates_and_synonyms_are_averaged_as_directions(clip):
    found = Prompts(
        clip, ["dog", "cat"], templates=["a {}.", "the {}."], synonyms={"dog": ["puppy"]}, tokenizer=hosts.tokenize
    )
    texts = {"dog": ["a dog.", "the dog.", "a puppy.", "the puppy."], "cat": ["a cat.", "the cat."]}
    for k, group in enumerate(texts.values()):
        total = torch.zeros(16)
        for text in group:
            out = clip.get_text_features(input_ids=hosts.tokenize([text]))
            vector = getattr(out, "pooler_output", out)[0].detach()
            total += vector / vector.norm()
        torch.testing.assert_close(found.text_features[k], total / total.norm(), rtol=1e-4, atol=1e-6)


def test_the_tokenizer_of_the_models_folder(clip, tmp_path):
    clip.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no tokenizer is found where this CLIPModel came from .*; give tokenizer="):
        Prompts(clip, NAMES)
    hosts.save_word_tokenizer(tmp_path, ["a", "dog", "cat", "grass"])
    model = camplug.load_model(f"hf:{tmp_path}")
    found = embed_texts(model, ["a dog", "grass"])
    for k, row in enumerate([[0, 4, 5, 2], [0, 7, 2]]):
        out = clip.get_text_features(input_ids=torch.tensor([row]))
        expected = F.normalize(getattr(out, "pooler_output", out), dim=-1)[0]
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="a prompt has 22 tokens, and the model reads 16; shorten"):
        embed_texts(model, ["a dog", "grass " * 20])


def test_long_prompts_of_open_clip():
    with pytest.raises(InputError, match=r"a prompt has \d+ tokens, and the model reads 16; shorten 'dog dog"):
        Prompts(build("open_clip ViT"), ["a cat", "dog " * 20])


def test_explainers_take_it_as_a_classifier(clip):
    prompts = Prompts(clip, NAMES[:2], background=NAMES[2:], tokenizer=hosts.tokenize)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    found = camplug.GradCAM(prompts).explain(photo, "a cat")
    assert found.names == ["a cat"]
    assert found.maps.shape == (1, 40, 60)
    assert prompts.preprocess.size == (64, 64)
    x, _ = prompts.preprocess(photo)
    torch.testing.assert_close(found.logits, prompts(x[None])[0].detach(), rtol=1e-4, atol=1e-6)
    assert not any("text" in name for name, _ in prompts.named_parameters())


def test_the_map_is_that_of_the_probability(clip):
    """Grad-CAM of the softmax over prompts and background, as in CLIP-ES, by hand."""
    prompts, x = Prompts(clip.double(), NAMES, tokenizer=hosts.tokenize), images().double()
    layer = prompts.tower.visual.encoder.layers[2].layer_norm1
    kept = []
    handle = layer.register_forward_hook(lambda m, i, out: kept.append(out))
    vision = clip.vision_model(pixel_values=x).pooler_output
    handle.remove()
    v = F.normalize(clip.visual_projection(vision), dim=-1)
    p = (clip.logit_scale.exp() * v @ prompts.text_features.T).softmax(1)
    (g,) = torch.autograd.grad(p[:, 1].sum(), kept[0])
    a, g = (t[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for t in (kept[0].detach(), g))
    expected = torch.einsum("nkhw,nk->nhw", a, g.mean((2, 3))).clamp_min(0)
    expected = F.interpolate(expected[:, None], (64, 64), mode="bilinear")[:, 0]
    found = camplug.GradCAM(prompts, "tower.visual.encoder.layers.2.layer_norm1", normalize=None).maps(x, 1)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-14)


def test_images_of_another_size(clip):
    prompts = Prompts(clip, NAMES, tokenizer=hosts.tokenize, interpolate=(96, 64))
    assert prompts.preprocess.size == (96, 64)
    x = torch.randn(1, 3, 96, 64)
    out = clip.get_image_features(pixel_values=x, interpolate_pos_encoding=True)
    v = F.normalize(getattr(out, "pooler_output", out), dim=-1)
    expected = (clip.logit_scale.exp() * v @ prompts.text_features.T).softmax(1)
    torch.testing.assert_close(prompts(x), expected, rtol=1e-4, atol=1e-6)
    assert camplug.LayerCAM(prompts).maps(x, 0).shape == (1, 96, 64)


def test_modes_and_weights_of_the_model_stay(clip):
    clip.train()
    clip.vision_model.eval()
    before = {name: m.training for name, m in clip.named_modules()}
    Prompts(clip, NAMES, tokenizer=hosts.tokenize)
    assert {name: m.training for name, m in clip.named_modules()} == before
    assert all(p.grad is None for p in clip.parameters())


@pytest.mark.parametrize(
    "prompts,options,says",
    [
        ("a dog", {}, 'prompts=\'a dog\'; give a list of texts, such as ["a dog", "grass"]'),
        ([], {}, "prompts= is empty"),
        (["a", "b", "a"], {}, "hold 'a' twice"),
        (["a"], {}, "is always 1; add prompts or background="),
        (["a", "b"], {"templates": ["a photo"]}, "the template 'a photo' must hold {} once"),
        (["a", "b"], {"synonyms": {"c": ["d"]}}, "synonyms= holds 'c', which is no prompt"),
        (["a", "b"], {"synonyms": {"a": "d"}}, "synonyms= of 'a' is a text"),
    ],
)
def test_refused_prompts(clip, prompts, options, says):
    with pytest.raises(InputError) as info:
        Prompts(clip, prompts, tokenizer=hosts.tokenize, **options)
    assert says in str(info.value)


def test_refused_models():
    with pytest.raises(ModelError, match=r"prompts need an image and a text tower with one embedding.*got Linear"):
        Prompts(nn.Linear(2, 2), ["a", "b"])
    with pytest.raises(ModelError, match="got Siglip2Model; it reads packed sequences of patches"):
        Prompts(build("hf Siglip2Model"), ["a", "b"])


def test_legrad_of_siglips_attention_pooling():
    """Its `nn.MultiheadAttention` by hand, for the tokens of each layer; images and heads are kept apart."""
    model = build("hf SiglipModel").double().eval()
    prompts, x = Prompts(model, NAMES, tokenizer=hosts.tokenize, softmax=False), images().double()
    vision = model.vision_model
    head, attention = vision.head, vision.head.attention
    states = vision(pixel_values=x, output_hidden_states=True).hidden_states[1:]
    wq, wk, wv = attention.in_proj_weight.chunk(3)
    bq, bk, bv = attention.in_proj_bias.chunk(3)
    layers = []
    for state in states:
        tokens = vision.post_layernorm(state)

        def split(t):
            return t.unflatten(-1, (2, 16)).transpose(1, 2)

        q, k, v = (split(F.linear(t, w, b)) for t, w, b in
                   [(head.probe.expand(2, -1, -1), wq, bq), (tokens, wk, bk), (tokens, wv, bv)])  # fmt: skip
        probabilities = (q @ k.mT / 4).softmax(-1)
        pooled = attention.out_proj((probabilities @ v).transpose(1, 2).flatten(2))
        pooled = (pooled + head.mlp(head.layernorm(pooled)))[:, 0]
        score = model.logit_scale.exp() * (F.normalize(pooled, dim=-1) @ prompts.text_features[1])
        (gradient,) = torch.autograd.grad(score.sum(), probabilities, retain_graph=True)
        layers.append(gradient.clamp_min(0).mean((1, 2)))
    expected = torch.stack(layers).mean(0).view(2, 1, 4, 4)
    expected = F.interpolate(expected, (64, 64), mode="bilinear")[:, 0]
    found = camplug.LeGrad(prompts, normalize=None).maps(x, 1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
