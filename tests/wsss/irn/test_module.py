"""The heads over different backbones and image sizes, and that training reaches them and nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from moved import without_waits
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.wsss.data import Scenes
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.irn.network import BoundaryHead, DisplacementHead, grid_size
from camplug.wsss.irn.training import set_mean_displacement
from camplug.wsss.train import Backbone, Crop, ScheduleSettings


class Tiny(nn.Module):
    """Three stages of strides 2, 4 and 8."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.three(self.two(self.one(x))).mean((2, 3)))


def an_irn():
    torch.manual_seed(0)
    irn = IRN(Backbone(Tiny().eval(), ["one", "two", "three"]), IRNHeadSettings(radius=4, width=16))
    irn.log = irn.log_dict = lambda *args, **kwargs: None  # there is no trainer around it
    return irn


@pytest.fixture
def irn(device):
    net = an_irn().to(device)
    net.backbone.model.to(device)
    return net


def a_batch(device, count=2, side=64):
    data = Scenes(count, (side, side), classes=3)
    photos = torch.from_numpy(np.stack([np.array(data.photo(i)) for i in range(count)])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([data.mask(i)[2::4, 2::4] for i in range(count)]))
    return Crop(Backbone(Tiny().eval()).normalize(photos).to(device), labels.to(device))


def photo(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_boundary_head_by_hand(device):
    """One stage at stride 4, one at stride 8, written out layer by layer."""
    head = BoundaryHead([6, 7], [4, 8]).to(device)
    fine, coarse = torch.randn(1, 6, 8, 8).to(device), torch.randn(1, 7, 4, 4).to(device)
    up = nn.functional.interpolate(head.stages[1](coarse), (8, 8), mode="bilinear", align_corners=False)
    planes = torch.cat([head.stages[0](fine).relu(), up.relu()], 1)
    expected = (planes * head.out.weight).sum(1) + head.out.bias
    torch.testing.assert_close(head([fine, coarse]), expected, atol=1e-5, rtol=1e-5)


def test_widths_are_the_papers_for_its_stages():
    head = DisplacementHead([64, 256, 512, 1024, 2048], [4, 4, 8, 16, 16])
    assert head.widths == [64, 128, 256, 256, 256]
    assert [stage[1].num_groups for stage in head.stages] == [8, 16, 16, 16, 16]
    assert head.join_coarse[0].weight.shape == (256, 768, 1, 1)
    assert head.join[0].weight.shape == (256, 448, 1, 1)
    assert head.out.bias is None


def test_the_mean_is_subtracted_in_evaluation_only(device):
    head = DisplacementHead([6], [4], width=16).to(device)
    features, mean = [torch.randn(1, 6, 5, 5).to(device)], torch.tensor([1.0, -2.0]).to(device)
    head.mean.copy_(mean)
    assert torch.equal(head.eval()(features), head.train()(features) - mean.view(1, 2, 1, 1))


def test_width_refused():
    with pytest.raises(InputError, match="width=20; give a multiple of 16"):
        DisplacementHead([6], [4], width=20)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (64, 96), (75, 100), (33, 4)])
def test_any_size(irn, size):
    boundary, displacement = irn.eval().boundaries(photo(*size)), irn.displacements(photo(*size))
    assert boundary.shape == grid_size(*size)
    assert displacement.shape == (2, *grid_size(*size))
    assert boundary.device.type == displacement.device.type == irn.device.type
    assert 0 <= float(boundary.min()) <= float(boundary.max()) <= 1


def test_a_mirrored_photograph_has_mirrored_boundaries(irn):
    """Mirroring is averaged out; exact where the width is whole positions of all strides."""
    pixels = photo(32, 64)
    one, other = (irn.eval().boundaries(p) for p in (pixels, pixels[:, ::-1]))
    torch.testing.assert_close(one, other.flip(-1))


def test_boundaries_are_those_of_both_logits(irn):
    x = irn.eval().backbone.read(photo(32, 64), irn.device)
    with torch.no_grad():
        logits, mirrored = (irn.boundary(irn.backbone(view))[0] for view in (x, x.flip(-1)))
    expected = ((logits + mirrored.flip(-1)) / 2).sigmoid()
    torch.testing.assert_close(irn.boundaries(photo(32, 64)), expected, atol=1e-5, rtol=1e-5)


def test_photographs_give_the_same_on_every_device(irn):
    here = an_irn().eval()
    here.displacement.mean.fill_(0.5)
    irn.eval().displacement.mean.fill_(0.5)
    for size in ((64, 96), (33, 50)):
        for look in ("boundaries", "displacements"):
            want, got = (getattr(net, look)(photo(*size)) for net in (here, irn))
            torch.testing.assert_close(got.cpu(), want, atol=1e-4, rtol=1e-4)


def test_a_step_is_the_same_on_every_device(irn):
    """The loss and all its gradients."""
    here, results = an_irn(), []
    for net, batch in ((here, a_batch("cpu")), (irn, a_batch(irn.device))):
        loss = IRN.training_step(_Detached(net), batch, 0)
        loss.backward()
        results.append([loss.detach().cpu(), *(p.grad.cpu() for p in net.parameters())])
    assert results[0][0] > 0
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)


def test_a_step_does_not_wait_for_the_device(irn):
    batch = a_batch(irn.device)
    IRN.training_step(_Detached(irn), batch, 0).backward()  # what is made once is made now
    with without_waits(irn.device):
        IRN.training_step(_Detached(irn), batch, 1).backward()


def test_crops_need_not_be_multiples_of_32(irn):
    IRN.training_step(_Detached(irn), a_batch(irn.device, side=40), 0).backward()
    assert all(p.grad.isfinite().all() for p in irn.parameters())


def test_half_precision_leaves_the_losses_their_digits(irn):
    batch, losses = a_batch(irn.device), []
    for enabled in (False, True):
        with torch.autocast(irn.device.type, torch.bfloat16, enabled=enabled):
            losses.append(IRN.training_step(_Detached(irn), batch, 0))
        losses[-1].backward()
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert all(p.grad.isfinite().all() for p in irn.parameters())


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "vgg11"])
def test_stages_of_real_architectures(name, device):
    net = IRN(Backbone(timm.create_model(name, num_classes=3).eval()), IRNHeadSettings(width=16)).to(device).eval()
    assert net.backbone.strides == sorted(net.backbone.strides)
    boundary, displacement = net.boundaries(photo(45, 70)), net.displacements(photo(45, 70))
    assert boundary.shape == (12, 18)
    assert displacement.shape == (2, 12, 18)


def test_training_reaches_the_heads_only(irn):
    before = copy.deepcopy(irn.backbone.model.state_dict())
    batch = Crop(torch.randn(2, 3, 64, 64).to(irn.device), torch.randint(0, 3, (2, 16, 16)).to(irn.device))
    loss = IRN.training_step(_Detached(irn), batch, 0)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in irn.boundary.parameters())
    assert all(p.grad is not None for p in irn.displacement.parameters())
    assert all(p.grad is None for p in irn.backbone.model.parameters())
    assert all(torch.equal(v, irn.backbone.model.state_dict()[k]) for k, v in before.items())
    assert not any("backbone" in name for name in irn.state_dict())


class _Detached:
    """The module without a trainer around it."""

    def __init__(self, module):
        self._module = module
        self.global_step = 0

    def __getattr__(self, name):
        return getattr(self._module, name)


def test_the_mean_displacement_is_that_of_all_positions(irn):
    class Two:
        def __len__(self):
            return 3

        def photo(self, i):
            if i == 1:
                raise InputError("broken")
            return photo(20 + 12 * i, 33)

    found = [irn.eval().displacements(photo(20 + 12 * i, 33)).flatten(1) for i in (0, 2)]
    set_mean_displacement(irn, Two())
    torch.testing.assert_close(irn.displacement.mean, torch.cat(found, 1).mean(1))
    again = [irn.displacements(photo(20 + 12 * i, 33)).flatten(1) for i in (0, 2)]
    torch.testing.assert_close(torch.cat(again, 1).mean(1).cpu(), torch.zeros(2), atol=1e-6, rtol=0)


def test_the_mean_displacement_does_not_wait_for_each_image(irn):
    data = Scenes(4, (40, 40), classes=3)
    set_mean_displacement(irn, data)  # what is made once is made now
    with without_waits(irn.device):
        set_mean_displacement(irn, data)
    assert irn.displacement.mean.any()


def test_without_width_there_are_boundaries_only(irn):
    net = IRN(irn.backbone, IRNHeadSettings(width=0)).eval()
    assert net.displacements(photo(20, 20)) is None
    assert not any("displacement" in name for name in net.state_dict())


def test_a_model_without_maps_is_refused():
    with pytest.raises(ModelError, match=r"feature maps \[N,C,h,w\] are needed"):
        Backbone(Tiny().eval(), ["fc"])


def test_the_optimizer_has_no_momentum_by_default(irn):
    """The published code's 0.9 is the decay's power."""
    made = ScheduleSettings().make_optimizers([(irn.boundary, 1.0), (irn.displacement, 10.0)], 100)
    assert [g["lr"] for g in made["optimizer"].param_groups] == pytest.approx([0.1, 1.0])
    assert {g["momentum"] for g in made["optimizer"].param_groups} == {0.0}
    for _ in range(50):
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert made["optimizer"].param_groups[1]["lr"] == pytest.approx(0.5**0.9)


@pytest.mark.parametrize(
    ("optimizer", "told", "factor"), [("sgd", None, 10), ("adamw", None, 1), ("sgd", 2.0, 2), ("adamw", 0.5, 0.5)]
)
def test_the_displacement_heads_learning_rate(irn, optimizer, told, factor):
    net = IRN(
        irn.backbone, IRNHeadSettings(width=16, schedule=ScheduleSettings(optimizer, lr=0.01), displacement_lr=told)
    )
    net._trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()
    made = net.configure_optimizers()["optimizer"]
    assert [g["lr"] for g in made.param_groups] == pytest.approx([0.01, 0.01 * factor])
