"""AffinityNet: what learns and what does not, that it learns, photographs of any size, and what they give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moved import without_waits
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.wsss.affinity import SparseAffinity, find_pairs, make_half_disc, propagate
from camplug.wsss.affinitynet import (
    AffinityNet,
    AffinityNetHeadSettings,
    feature_affinity,
    grid_size,
)
from camplug.wsss.data import Scenes
from camplug.wsss.pseudo import AffinityNetWalk, PseudoLabels
from camplug.wsss.train import Backbone, Crop, LabelCrops, ScheduleSettings, fit

SMALL = AffinityNetHeadSettings(width=56)
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")  # steps without a trainer


class Tiny(nn.Module):
    """Three convolutions of stride 2, with batch normalisation and dropout that must not run."""

    def __init__(self):
        super().__init__()
        sizes = zip((3, 12, 16), (12, 16, 24), strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU(), nn.Dropout(0.3)) for i, o in sizes
        )
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def network(settings=SMALL, model=None, device="cpu"):
    torch.manual_seed(0)
    net = AffinityNet(Backbone(Tiny() if model is None else model), settings).to(device)
    net.backbone.model.to(device)
    return net


def scenes_batch(net, count=2, size=(96, 96)):
    data = Scenes(count, size, classes=3)
    photos = [torch.from_numpy(np.array(data.photo(i))).permute(2, 0, 1) for i in range(count)]
    labels = [torch.from_numpy(data.mask(i)[4::8, 4::8].copy()) for i in range(count)]
    return Crop(net.backbone.normalize(torch.stack(photos)).to(net.device), torch.stack(labels).to(net.device))


def photo(h, w):
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_published_schedule():
    schedule = AffinityNetHeadSettings().schedule
    assert (schedule.optimizer, schedule.lr, schedule.momentum) == ("sgd", 1.0, 0.0)
    assert (schedule.weight_decay, schedule.power) == (5e-4, 0.9)
    assert AffinityNetHeadSettings().radius == 5


def test_gradients_reach_the_head_alone(device):
    net = network(device=device)
    net.training_step(scenes_batch(net), 0).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert all(p.grad is None for p in net.backbone.model.parameters())


def test_a_step_is_the_same_on_every_device(device):
    """The loss and all its gradients."""
    results = []
    for net in (network(), network(device=device)):
        loss = net.training_step(scenes_batch(net), 0)
        loss.backward()
        results.append([loss.detach().cpu(), *(p.grad.cpu() for p in net.parameters())])
    assert results[0][0] > 0
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)


def test_a_step_does_not_wait_for_the_device(device):
    net = network(device=device)
    batch = scenes_batch(net)
    net.training_step(batch, 0).backward()  # what is made once is made now
    with without_waits(net.device):
        net.training_step(batch, 1).backward()


def test_it_learns_which_positions_belong_together(device):
    net = network(device=device)
    crop = scenes_batch(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=3.0)
    losses = []
    for _ in range(80):
        loss = net.training_step(crop, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.65 * losses[0]
    with torch.no_grad():
        affinity = feature_affinity(net(crop.image), 5)
    pairs = find_pairs(crop.labels, 5)
    same, different = affinity[pairs.background | pairs.foreground].sort().values, affinity[pairs.different]
    below = torch.searchsorted(same, different).float() / len(same)
    assert 1 - below.mean() > 0.88  # how often a pair of one class has the higher affinity; chance is 0.5


def test_fit_trains_the_head_and_leaves_the_backbone(tmp_path):
    model = Tiny().train()
    net = network(AffinityNetHeadSettings(radius=3, width=56, schedule=ScheduleSettings(lr=0.5)), model)
    before, head = state(model), state(net)
    data = Scenes(2, (48, 48), classes=3)
    crops = LabelCrops(data, data.mask, net.backbone.normalize, crop=64, stride=8)
    fit(net, crops, tmp_path, epochs=2, batch=2, device="cpu", progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(not torch.equal(head[name], tensor) for name, tensor in net.state_dict().items())
    assert set(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]) == set(head)


def test_a_loss_that_is_no_number_stops_the_training(device):
    """On a GPU at the next look."""
    net = network(device=device)
    image, labels = scenes_batch(net)

    def steps():
        net.training_step(Crop(image * float("nan"), labels), 0)
        net.finite.check()

    with pytest.raises(ModelError, match="learning rate"):
        steps()


def test_a_batch_without_pairs_trains_nothing(device):
    net = network(device=device)
    image, labels = scenes_batch(net)
    loss = net.training_step(Crop(image, torch.full_like(labels, 255)), 0)
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in net.parameters())


def test_half_precision_leaves_the_loss_its_digits(device):
    net = network(device=device)
    crop = scenes_batch(net)
    with torch.autocast(device.type, torch.bfloat16):
        assert net(crop.image).dtype == torch.float32
        loss = net.training_step(crop, 0)
    assert loss.item() == pytest.approx(net.training_step(crop, 0).item(), rel=0.02)


def test_crops_need_not_be_multiples_of_32(device):
    net = network(device=device)
    image, labels = scenes_batch(net, size=(40, 56))
    assert net(image).shape == (2, 56, 5, 7)
    net.training_step(Crop(image, labels), 0).backward()


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (40, 1), (32, 64), (33, 65), (75, 101)])
def test_photographs_of_any_size(size, device):
    net, picture = network(device=device), photo(*size)
    affinity = net.affinities(picture)
    assert isinstance(affinity, SparseAffinity)
    assert affinity.device.type == device.type
    assert affinity.size == grid_size(*size)
    planes = np.random.default_rng(1).random((2, *affinity.size)).astype(np.float32)
    walked = propagate(planes, affinity, 256, 8)
    assert walked.shape == planes.shape
    assert planes.min() - 1e-3 <= walked.min()
    assert walked.max() <= planes.max() + 1e-3
    maps = np.random.default_rng(2).random((2, *size)).astype(np.float32)
    assert PseudoLabels(AffinityNetWalk(net))(picture, maps).shape == size


def test_look_is_the_affinity_of_the_features(device):
    net, picture = network(device=device), photo(24, 40)
    image = net.backbone.normalize(torch.from_numpy(picture).permute(2, 0, 1))[None].to(device)
    planes = feature_affinity(net(image), 5)[0].detach().cpu()
    matrix = net.affinities(picture).matrix
    here = network().affinities(picture).matrix
    np.testing.assert_array_equal(matrix.indices, here.indices)
    np.testing.assert_allclose(matrix.data, here.data, atol=1e-5)
    assert matrix[0, 1] == pytest.approx(float(planes[0, 0, 0]), rel=1e-6)
    # (1, 1) and (1, 4): three steps to the right
    assert matrix[6, 1 * 5 + 4] == pytest.approx(float(planes[2, 1, 1]), rel=1e-6)
    assert matrix[2, 2 * 5 + 2] == pytest.approx(float(planes[make_half_disc(5).index((2, 0)), 0, 2]), rel=1e-6)


def test_a_grid_smaller_than_the_radius_has_all_its_pairs():
    assert network().affinities(photo(16, 16)).matrix.nnz == 4 * 4


@pytest.mark.parametrize(
    "wrong", [photo(8, 8).astype(np.float32), photo(8, 8)[..., 0], photo(8, 8)[..., :2], np.zeros((0, 4, 3), np.uint8)]
)
def test_look_refuses_what_is_no_photograph(wrong):
    with pytest.raises(InputError, match=r"RGB uint8 \[H,W,3\]"):
        network().affinities(wrong)


def test_settings_are_checked_at_once():
    with pytest.raises(InputError, match="radius=1"):
        network(AffinityNetHeadSettings(radius=1, width=56))
    with pytest.raises(InputError, match="width=100"):
        network(AffinityNetHeadSettings(width=100))
