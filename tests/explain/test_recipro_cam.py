"""ReciproCAM against a network run once per position."""

from __future__ import annotations

import feature_maps
import manual_vit
import pytest
import torch
from reference import relative_error

import camplug
from camplug.explain.recipro_cam import make_position_masks, recipro_cam


def slow(model, image, c):
    a = model.features(image).detach()
    h, w = a.shape[2:]
    scores = torch.zeros(h, w).to(a)
    for i in range(h):
        for j in range(w):
            masked = torch.zeros_like(a)
            for di, dj in [(p, q) for p in (-1, 0, 1) for q in (-1, 0, 1)]:
                if 0 <= i + di < h and 0 <= j + dj < w:
                    weight = 0.25 / 2 ** (abs(di) + abs(dj))
                    masked[..., i + di, j + dj] = weight * a[..., i + di, j + dj]
            scores[i, j] = model.head(masked.mean((2, 3))).softmax(1)[0, c]
    return feature_maps.finish(scores - scores.min())


@pytest.mark.parametrize("batch_size", [5, 64])
def test_equals_the_slow_reference(batch_size, device):
    model, x = feature_maps.make(device)
    got = camplug.ReciproCAM(model, batch_size=batch_size).maps(x, feature_maps.CLASSES)
    for i, classes in enumerate(feature_maps.CLASSES):
        for k, c in enumerate(classes):
            assert relative_error(got[i][k], slow(model, x[i : i + 1], c)) <= 1e-9


def test_tokens_besides_the_patches_stay(device):
    model, x = manual_vit.make().to(device), torch.randn(1, 3, 16, 24).double().to(device)
    tokens, scores = model.blocks[2].norm1, []
    for mask in make_position_masks((2, 3)).double().to(device):
        weights = torch.cat([mask.new_ones(1), mask.flatten()])[:, None]
        handle = tokens.register_forward_hook(lambda module, given, output, weights=weights: output * weights)
        scores.append(model(x).softmax(1)[0, 1].detach())
        handle.remove()
    scores = torch.stack(scores).view(2, 3)
    want = feature_maps.finish(scores - scores.min(), (16, 24))
    assert relative_error(camplug.ReciproCAM(model, "blocks.2.norm1").maps(x, 1)[0], want) <= 1e-9


def test_masks_and_map_by_hand():
    masks = make_position_masks((3, 3))
    want = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    torch.testing.assert_close(masks[4], want)
    torch.testing.assert_close(masks[0], torch.tensor([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]) / 16)
    torch.testing.assert_close(recipro_cam(torch.tensor([[[0.25, 0.75]]])), torch.tensor([[[0.0, 0.5]]]))


def test_refusals():
    model, x = feature_maps.make()
    with pytest.raises(camplug.LayerError, match=r"ReciproCAM masks places of the layer 'act'.*; leave out reshape="):
        camplug.ReciproCAM(model, "act", reshape=lambda t: t).maps(x, 0)
