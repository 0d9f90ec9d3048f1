"""The activation-aware loss: golden numbers, a slow loop, gradients, and what must not break it."""

from __future__ import annotations

import math

import pytest
import torch
from moved import everywhere
from torch import tensor

from camplug.errors import InputError
from camplug.wsss.deeplab.refinement import activation_aware_loss, compute_agreement

_on_the_device = everywhere("activation_aware_loss", "compute_agreement")


def scene(n=4, planes=4, size=(5, 6)):
    """Random images; the last has no counted pixel, the one before nothing but background in labels and saliency."""
    logits = torch.randn(n, planes, *size, dtype=torch.float64)
    labels = torch.randint(0, planes, (n, *size), dtype=torch.uint8)
    labels[torch.rand(n, *size) < 0.3] = 255
    saliency = torch.rand(n, *size, dtype=torch.float64)
    labels[-1] = 255
    labels[-2], saliency[-2] = 0, saliency[-2] / 3
    return logits.requires_grad_(), labels, saliency


def looped(logits, labels, saliency, alpha, threshold):
    """Image by image and pixel by pixel, from the printed equation."""
    losses, taus, conflicts = [], [], []
    for z, y, s in zip(logits, labels, saliency, strict=True):
        pixels = [(i, j) for i in range(y.shape[0]) for j in range(y.shape[1]) if y[i, j] != 255]
        if not pixels:
            losses, taus, conflicts = [*losses, 0 * z.sum()], [*taus, 0.0], [*conflicts, 0.0]
            continue
        ious, entropy = [], 0
        for wanted in (True, False):
            ours = {p for p in pixels if bool(y[p] == 0) == wanted}
            theirs = {p for p in pixels if bool(s[p] < threshold) == wanted}
            if ours | theirs:
                ious.append(len(ours & theirs) / len(ours | theirs))
            differ = len(ours ^ theirs)
        for i, j in pixels:
            p = z[:, i, j].softmax(0)[0]
            entropy = entropy - (1 - s[i, j]) * p.log() - s[i, j] * (1 - p).log()
        taus.append(sum(ious) / len(ious))
        conflicts.append(differ / len(pixels))
        losses.append(alpha * (math.exp(taus[-1]) - 1) * entropy / len(pixels))
    return sum(losses) / len(losses), taus, conflicts


def test_golden_numbers():
    """One image of 2x2, all counted, logits log 3 for background and 0 for the class: p_0 = 3/4.

    Labels 0 0 / 0 1, saliency 0 1 / .25 1: background in both at 2 pixels, in one at 1, foreground in both at 1: the
    IoUs are 2/3 and 1/2, tau 7/12. Entropies: log 4/3; log 4; 3/4 log 4/3 + 1/4 log 4; log 4.
    """
    logits = tensor([math.log(3), 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    loss, tau, conflicts = activation_aware_loss(
        logits, tensor([[[0, 0], [0, 1]]]), tensor([[[0.0, 1.0], [0.25, 1.0]]]), alpha=0.5
    )
    entropy = (1.75 * math.log(4 / 3) + 2.25 * math.log(4)) / 4
    assert tau.tolist() == pytest.approx([7 / 12])
    assert conflicts.tolist() == [0.25]
    assert loss.item() == pytest.approx(0.5 * (math.exp(7 / 12) - 1) * entropy)


def test_the_background_probability_is_one_of_all_classes():
    """Two classes of logit 0 beside a background of log 2: p_0 = 1/2, not 2/3; tau 1 and the paper's alpha."""
    logits = tensor([math.log(2), 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    loss, tau, _ = activation_aware_loss(logits, tensor([[[0, 2]]]), tensor([[[0.0, 1.0]]]))
    assert tau.item() == 1
    assert loss.item() == pytest.approx(0.08 * (math.e - 1) * math.log(2))


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_like_the_slow_loop_with_gradients(threshold):
    logits, labels, saliency = scene()
    loss, tau, conflicts = activation_aware_loss(logits, labels, saliency, alpha=0.3, threshold=threshold)
    slow, taus, differ = looped(logits, labels, saliency, 0.3, threshold)
    assert tau.tolist() == pytest.approx(taus, abs=1e-6)
    assert conflicts.tolist() == pytest.approx(differ, abs=1e-6)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-6)
    (fast,) = torch.autograd.grad(loss, logits)
    (reference,) = torch.autograd.grad(slow, logits)
    torch.testing.assert_close(fast, reference, rtol=1e-6, atol=1e-9)


def test_gradients_agree_with_differences():
    logits, labels, saliency = scene(n=3, planes=3, size=(2, 3))
    assert torch.autograd.gradcheck(lambda z: activation_aware_loss(z, labels, saliency).loss, (logits,))


def test_no_gradient_through_tau_or_saliency():
    logits, labels, saliency = scene()
    saliency.requires_grad_()
    loss, tau, conflicts = activation_aware_loss(logits, labels, saliency)
    loss.backward()
    assert saliency.grad is None
    assert not tau.requires_grad
    assert not conflicts.requires_grad


def test_the_factor_of_tau():
    """Full agreement weighs e - 1, full disagreement nothing; alpha is a plain factor."""
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    same = (labels > 0).float()
    agreed, contrary = (activation_aware_loss(logits, labels, s) for s in (same, 1 - same))
    assert (agreed.tau.item(), agreed.conflicts.item()) == (1, 0)
    assert (contrary.tau.item(), contrary.conflicts.item()) == (0, 1)
    assert contrary.loss.item() == 0
    assert activation_aware_loss(logits, labels, same, alpha=0.16).loss.item() == pytest.approx(2 * agreed.loss.item())
    assert activation_aware_loss(logits, labels, same, alpha=0).loss.item() == 0


def test_the_threshold_itself_is_salient():
    labels = tensor([[[0, 1]]])
    _, tau, _ = activation_aware_loss(torch.zeros(1, 2, 1, 2), labels, tensor([[[0.49, 0.5]]]))
    assert tau.item() == 1


@pytest.mark.parametrize("everywhere", [0, 1])
def test_one_empty_union_means_full_agreement(everywhere):
    labels = torch.full((1, 2, 3), everywhere)
    _, tau, conflicts = activation_aware_loss(torch.zeros(1, 2, 2, 3), labels, labels.float())
    assert (tau.item(), conflicts.item()) == (1, 0)


def test_ignored_pixels_count_nowhere():
    """What stands at them in logits and saliency does not matter, for the loss and for its gradient."""
    logits, labels, saliency = scene(n=3)
    other = torch.where((labels == 255)[:, None], -logits.detach(), logits.detach()).requires_grad_()
    turned = torch.where(labels == 255, 1 - saliency, saliency)
    one, two = activation_aware_loss(logits, labels, saliency), activation_aware_loss(other, labels, turned)
    torch.testing.assert_close(one, two)
    one.loss.backward()
    assert not logits.grad.permute(0, 2, 3, 1)[labels == 255].any()


def test_nothing_counted_gives_zero_with_a_graph():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss, tau, conflicts = activation_aware_loss(logits, torch.full((2, 4, 4), 255), torch.rand(2, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert tau.tolist() == conflicts.tolist() == [0, 0]
    assert not logits.grad.any()


def test_images_weigh_the_same_whatever_they_count():
    logits, labels, saliency = scene(n=2)
    labels[1] = 0
    labels[0, 1:] = 255
    both = activation_aware_loss(logits, labels, saliency).loss
    each = [activation_aware_loss(logits[i : i + 1], labels[i : i + 1], saliency[i : i + 1]).loss for i in range(2)]
    assert both.item() == pytest.approx(sum(each).item() / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_of_any_precision_stay_finite(dtype):
    """p_0 is 0 or 1 to the last bit: the loss is the difference of logits, its gradient at most 1 a pixel."""
    logits = torch.zeros(2, 3, 8, 8, dtype=dtype)
    logits[0, 0], logits[1, 2] = 60000, 60000
    logits.requires_grad_()
    labels = torch.ones(2, 8, 8, dtype=torch.uint8)
    labels[1] = 0
    saliency = labels.to(dtype)
    loss, tau, _ = activation_aware_loss(logits, labels, saliency, alpha=1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert tau.tolist() == [1, 1]
    assert loss.item() == pytest.approx((math.e - 1) * logits[0, 0, 0, 0].item(), rel=1e-3)
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max().item() == pytest.approx((math.e - 1) / 128, rel=1e-2)


def test_the_same_under_autocast(device):
    logits, labels, saliency = scene()
    logits, saliency = logits.detach().bfloat16(), saliency.float()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mixed = activation_aware_loss(logits, labels, saliency)
    torch.testing.assert_close(mixed, activation_aware_loss(logits.float(), labels, saliency))


def test_agreement_leaves_masks_as_they_are():
    one, other = torch.rand(2, 3, 3) < 0.5, torch.rand(2, 3, 3) < 0.5
    before = one.clone(), other.clone()
    compute_agreement(one, other, torch.ones_like(one))
    assert all(map(torch.equal, before, (one, other)))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"logits": torch.zeros(2, 1, 4, 4)}, "the background and at least one class"),
        ({"logits": torch.zeros(3, 4, 4)}, r"logits \[3, 4, 4\]; give \[N,K\+1,h,w\]"),
        ({"labels": torch.zeros(2, 8, 8)}, r"labels \[2, 8, 8\] and saliency \[2, 4, 4\] do not fit logits"),
        ({"saliency": torch.zeros(2, 1, 4, 4)}, r"give \[2, 4, 4\] both"),
        ({"saliency": torch.full((2, 4, 4), 255, dtype=torch.uint8)}, "divide 8-bit values by 255"),
        ({"saliency": torch.full((2, 4, 4), math.nan)}, r"not in \[0, 1\]"),
        ({"alpha": -1}, "alpha=-1; give a number of at least 0"),
        ({"threshold": 0}, "threshold=0 of the saliency; give a number above 0"),
        ({"threshold": 127}, "at most 1"),
    ],
)
def test_refuses_what_does_not_fit(change, sentence):
    given = {
        "logits": torch.zeros(2, 3, 4, 4),
        "labels": torch.zeros(2, 4, 4, dtype=torch.uint8),
        "saliency": torch.zeros(2, 4, 4),
    }
    with pytest.raises(InputError, match=sentence):
        activation_aware_loss(**given | change)
