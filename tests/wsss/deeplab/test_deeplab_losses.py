"""Cross-entropy, balanced, at several scales: by hand, and against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from moved import everywhere
from PIL import Image

from camplug.wsss.deeplab import losses
from camplug.wsss.deeplab.losses import (
    count_pixels,
    drop_large_losses,
    fuse_logits,
    multiscale_loss,
    segmentation_loss,
    shrink_labels,
)

_on_the_device = everywhere(
    "drop_large_losses", "fuse_logits", "multiscale_loss", "count_pixels", "segmentation_loss", "shrink_labels"
)


@pytest.mark.parametrize("size", [(7, 5), (8, 8), (20, 3), (21, 41), (1, 1), (13, 29), (320, 321), (33, 16)])
def test_labels_are_shrunk_as_pillow_does(size):
    rng = np.random.default_rng(0)
    for height, width in ((20, 41), (321, 33), (97, 320)):
        labels = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
        wanted = [np.asarray(Image.fromarray(one).resize(size[::-1], Image.Resampling.NEAREST)) for one in labels]
        assert np.array_equal(shrink_labels(torch.from_numpy(labels), size).numpy(), np.stack(wanted))


def test_shrinking_differs_from_torch_nearest():
    row = torch.arange(4)[None, None]
    assert shrink_labels(row, (1, 2)).tolist() == [[[1, 3]]]
    assert F.interpolate(row[None].float(), (1, 2), mode="nearest").flatten().tolist() == [0, 2]


def test_labels_of_the_same_size_stay(device):
    labels = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    assert losses.shrink_labels(there := labels.to(device), (1, 2)) is there
    assert shrink_labels(labels, (1, 4)).dtype == torch.uint8


def test_cross_entropy_by_hand():
    # p of the true class: 1/2, 3/4, 1/4, and one pixel that is ignored
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [0.0, math.log(3)], [0.0, 9.0]]).T[None, :, None]
    labels = torch.tensor([[[0, 1, 0, 255]]], dtype=torch.uint8)
    plain = (math.log(2) + math.log(4 / 3) + math.log(4)) / 3
    assert float(segmentation_loss(logits, labels)) == pytest.approx(plain)
    balanced = 0.5 * (math.log(2) + math.log(4)) / 2 + 0.5 * math.log(4 / 3)
    assert float(segmentation_loss(logits, labels, balanced=True)) == pytest.approx(balanced)


def test_balanced_without_one_kind_is_the_mean_of_the_other():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 5)
    for value in (0, 2):
        labels = torch.full((2, 3, 5), value)
        labels[0, 0] = 255
        plain = segmentation_loss(logits, labels)
        assert torch.allclose(segmentation_loss(logits, labels, balanced=True), plain)


@pytest.mark.parametrize("balanced", [False, True])
def test_ignored_pixels_count_nothing_and_all_of_them_give_0_with_a_graph(balanced):
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    loss = segmentation_loss(logits, labels, balanced=balanced)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.eq(0).all()
    labels[0, 1:3] = 1
    (gradient,) = torch.autograd.grad(segmentation_loss(logits, labels, balanced=balanced), logits)
    assert gradient[:, :, 0].eq(0).all()
    assert gradient[:, :, 1].ne(0).any()


@pytest.mark.parametrize("balanced", [False, True])
def test_processes_with_the_mean_of_their_counts_have_the_batch_on_average(balanced):
    torch.manual_seed(1)
    logits = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    labels = torch.randint(0, 3, (4, 5, 6))
    labels[0, :3] = 255
    labels[1] = 0
    counts = torch.stack([count_pixels(labels[:2]), count_pixels(labels[2:])]).double().mean(0)
    parts = [segmentation_loss(logits[s], labels[s], balanced=balanced, counts=counts) for s in (slice(2), slice(2, 4))]
    assert torch.allclose(sum(parts) / 2, segmentation_loss(logits, labels, balanced=balanced))


def loop(logits, labels, balanced):
    """Cross-entropy, pixel by pixel."""
    means = {True: [], False: []}
    for n in range(len(logits)):
        for y in range(logits.shape[2]):
            for x in range(logits.shape[3]):
                label = int(labels[n, y, x])
                if label != 255:
                    exponents = [math.exp(v) for v in logits[n, :, y, x].tolist()]
                    means[label == 0].append(-math.log(exponents[label] / sum(exponents)))
    if balanced:
        return sum(sum(m) / len(m) for m in means.values()) / 2
    return sum(sum(m) for m in means.values()) / sum(len(m) for m in means.values())


@pytest.mark.parametrize("balanced", [False, True])
def test_multiscale_is_the_sum_over_scales_and_their_maximum(balanced):
    torch.manual_seed(2)
    logits = [torch.randn(2, 3, s, s + 1, dtype=torch.float64) for s in (8, 6, 4)]
    labels = torch.randint(0, 3, (2, 32, 36), dtype=torch.uint8)
    labels[0, 4:20, 5:30] = 255
    larger = [F.interpolate(one, (8, 9), mode="bilinear", align_corners=False) for one in logits[1:]]
    maximum = torch.empty_like(logits[0])
    for place in np.ndindex(tuple(maximum.shape)):
        maximum[place] = max(logits[0][place], *(one[place] for one in larger))
    torch.testing.assert_close(fuse_logits(logits), maximum, rtol=0, atol=1e-12)
    wanted = 0.0
    for one in (*logits, maximum):
        size = one.shape[2:]
        small = [np.asarray(Image.fromarray(m).resize((size[1], size[0]), 0)) for m in labels.numpy()]
        wanted += loop(one, np.stack(small), balanced)
    assert float(multiscale_loss(logits, labels, balanced=balanced)) == pytest.approx(wanted)


def test_one_scale_is_not_counted_twice():
    torch.manual_seed(3)
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 16, 16))
    assert torch.equal(multiscale_loss([logits], labels), segmentation_loss(logits, shrink_labels(labels, (4, 4))))


def test_the_largest_losses_of_each_class_are_dropped():
    """Two classes: of class 0 with losses .1, .2, .3, .4 the half, of class 1 with one pixel none."""
    p = torch.tensor([0.1, 0.4, 0.2, 0.3, 0.9, 0.5]).neg().exp()  # the probability of the label
    labels = torch.tensor([[[0, 0, 0, 0, 1, 255]]], dtype=torch.uint8)
    first = torch.where(labels[0, 0] == 1, 1 - p, p)
    logits = torch.stack([first, 1 - first]).log()[None, :, None]
    assert drop_large_losses(logits, labels, 0.5).tolist() == [[[0, 255, 0, 255, 1, 255]]]
    assert torch.equal(drop_large_losses(logits, labels, 0.0), labels)
    assert drop_large_losses(logits, labels, 0.5).dtype == torch.uint8


def test_dropping_equals_a_loop_over_classes():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 7, 6), torch.randint(0, 6, (3, 7, 6)).where(torch.rand(3, 7, 6) > 0.2, 255)
    labels[labels == 5] = 255
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    wanted = labels.clone()
    for c in range(5):
        values = each[labels == c].sort().values
        count = len(values) - int(len(values) * 0.3)
        wanted[(labels == c) & (each > values[count - 1])] = 255
    assert torch.equal(drop_large_losses(logits, labels, 0.3), wanted)
