"""A step of DeepLab's training: groups and rates, what is frozen, losses."""

from __future__ import annotations

from dataclasses import replace

import labelled
import pytest
import torch
import trainable
from torch import nn

from camplug.errors import ModelError
from camplug.wsss.deeplab import (
    DeepLabNetworkSettings,
    DeepLabTraining,
    activation_aware_loss,
    build_deeplab,
    multiscale_loss,
    shrink_labels,
)
from camplug.wsss.deeplab.crops import SegmentationCrop

pytestmark = pytest.mark.filterwarnings("ignore:.*(self.log|does not say).*")


class Trainer:
    estimated_stepping_batches, world_size, global_rank, current_epoch, global_step = 4, 1, 0, 0, 0


def module(settings, seed=0):
    torch.manual_seed(seed)
    found = DeepLabTraining(build_deeplab(trainable.net(), "abc", settings), settings, ids=labelled.scenes().ids)
    found._trainer = Trainer()
    found.log = found.log_dict = lambda *args, **kwargs: None
    return found.train()


def batch(n=2, side=48):
    rng = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (n, side, side), generator=rng, dtype=torch.uint8)
    labels[:, :, :8] = 255
    saliency = torch.rand(n, side, side, generator=rng)
    return SegmentationCrop(torch.randn(n, 3, side, side, generator=rng), labels, saliency, torch.arange(n))


def test_the_groups_have_the_rates_of_the_second_deeplab():
    found = module(DeepLabNetworkSettings(output_stride=None))
    made = found.configure_optimizers()
    groups = made["optimizer"].param_groups
    assert [g["lr"] for g in groups] == pytest.approx([2.5e-4, 2.5e-3, 5e-3])
    assert [g["weight_decay"] for g in groups] == [5e-4, 5e-4, 0.0]
    assert [g["momentum"] for g in groups] == [0.9] * 3
    biases = {id(branch.bias) for branch in found.network.head.branches}
    assert {id(p) for p in groups[2]["params"]} == biases
    assert {id(p) for p in groups[1]["params"]} == {id(branch.weight) for branch in found.network.head.branches}
    convs = [m.weight for m in found.network.body.modules() if isinstance(m, nn.Conv2d)]
    assert {id(p) for p in convs} <= {id(p) for p in groups[0]["params"]}
    rates = []
    for _ in range(4):
        rates.append(groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([2.5e-4 * (1 - step / 4) ** 0.9 for step in range(4)])


def test_fixed_batch_norm_neither_learns_nor_counts_but_a_head_s_own_does():
    settings = DeepLabNetworkSettings("v3+", output_stride=None, width=8)
    found = module(settings)
    before = {k: v.clone() for k, v in found.network.state_dict().items()}
    made = found.configure_optimizers()
    found.training_step(batch(), 0).backward()
    made["optimizer"].step()
    after = found.network.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert not any(k.startswith("body") and ".1." in k for k in changed)  # the batch norms of `Net`
    assert any(k.startswith("body") and k.endswith("0.weight") for k in changed)
    assert {"head.project.1.running_mean", "head.project.1.weight", "head.pooled.1.running_var"} <= changed
    assert not found.network.body.model.one[1].training
    assert found.network.head.project[1].training
    trained = module(replace(settings, batch_norm="train"))
    assert trained.network.body.model.one[1].training
    trained.training_step(batch(), 0).backward()
    assert trained.network.body.model.one[1].weight.grad is not None


def test_what_lies_before_the_cut_gets_no_gradient():
    found = module(DeepLabNetworkSettings(output_stride=None, cut=4))
    found.training_step(batch(), 0).backward()
    body = found.network.body.model
    assert all(p.grad is None and not p.requires_grad for part in (body.one, body.two) for p in part.parameters())
    assert body.three[0].weight.grad is not None
    optimised = {id(p) for g in found.configure_optimizers()["optimizer"].param_groups for p in g["params"]}
    assert optimised.isdisjoint({id(p) for p in [*body.one.parameters(), *body.two.parameters()]})


def test_a_step_is_the_multiscale_loss_of_resized_images():
    found = module(DeepLabNetworkSettings(output_stride=None, loss_scales=(1, 0.75, 0.5), loss="balanced"))
    given = batch()
    sizes = [tuple(m.shape[2:]) for m in found.logits(given.image)]
    assert sizes == [(6, 6), (5, 5), (3, 3)]  # of 48, 36 and 24 pixels at stride 8
    views = [nn.functional.interpolate(given.image, (s, s), mode="bilinear") for s in (48, 36, 24)]
    wanted = multiscale_loss([found.network(v) for v in views], given.labels, balanced=True)
    assert torch.allclose(found.training_step(given, 0), wanted)


def test_the_refinement_term_comes_to_the_loss_at_the_fused_logits():
    settings = DeepLabNetworkSettings(output_stride=None, refinement=0.08, saliency_threshold=0.4)
    found, given = module(settings), batch()
    logits = found.network(given.image)
    plain = multiscale_loss([logits], given.labels)
    saliency = nn.functional.interpolate(given.saliency[:, None], (6, 6), mode="bilinear", antialias=True)[:, 0]
    labels = shrink_labels(given.labels, (6, 6))
    term = activation_aware_loss(logits, labels, saliency, alpha=0.08, threshold=0.4)
    assert term.loss > 0
    assert torch.allclose(found.training_step(given, 0), plain + term.loss)


def test_a_loss_that_is_no_number_names_the_images():
    found = module(DeepLabNetworkSettings(output_stride=None))
    found.network.head.branches[0].weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="the loss at step 0 is nan on the images scene0_000000, scene0_000001"):
        found.training_step(batch(), 0)


def test_an_ignored_batch_has_a_loss_of_0_that_reaches_every_weight():
    found, given = module(DeepLabNetworkSettings(output_stride=None, loss_scales=(1, 0.5))), batch()
    loss = found.training_step(given._replace(labels=torch.full_like(given.labels, 255)), 0)
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is not None for p in found.parameters() if p.requires_grad)


def test_the_share_of_dropped_pixels_rises_over_the_first_half():
    found, given = module(DeepLabNetworkSettings(output_stride=None, drop_large_losses=0.5)), batch()
    logits = found.logits(given.image)
    size = tuple(logits[0].shape[2:])
    before = int((shrink_labels(given.labels, size) != 255).sum())
    kept = []
    for step in range(4):
        found._trainer.global_step = step
        labels = shrink_labels(found._drop(logits, given.labels), size)
        kept.append(int((labels != 255).sum()))
    assert kept[0] == before
    assert kept[0] > kept[1] > kept[2] == kept[3]
    assert kept[3] == pytest.approx(before / 2, abs=2)  # rounded up in each of four classes
