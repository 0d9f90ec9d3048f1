"""Steps of every training on a device: values and gradients of the CPU, without the host waiting for them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import stepped
import torch
from lightning.pytorch import LightningModule
from moved import moved, without_waits

from camplug.errors import ModelError
from camplug.images.preprocess import make_channel_tensor
from camplug.plug import send_to
from camplug.wsss.train import FiniteLosses, check_finite
from camplug.wsss.train import finite as looks
from camplug.wsss.train.callbacks import LossCheck

ALL = [*stepped.METHODS, *stepped.HEADS]


def stepped_once(module, batch, device):
    batch = module.transfer_batch_to_device(batch, device, 0)
    loss = module.training_step(batch, 0)
    loss.backward()
    return loss


@pytest.mark.parametrize("name", ALL)
def test_a_step_equals_that_of_the_cpu(name, device):
    module, batch = stepped.of(name)
    module.double()
    if name in stepped.HEADS:
        batch = batch._replace(image=batch.image.double(), saliency=batch.saliency.double())
    wanted = stepped_once(module, batch, torch.device("cpu")).item()
    expected = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    statistics = {n: b.clone() for n, b in module.named_buffers()}
    assert expected

    again, _ = stepped.of(name)
    there = stepped.move(again.double(), device)
    there.zero_grad()
    found = stepped_once(there, batch, device)
    assert found.device.type == device.type
    assert found.item() == pytest.approx(wanted, rel=1e-7)
    gradients = {n: p.grad.cpu() for n, p in there.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[parameter], atol=1e-7, rtol=1e-5, msg=parameter)
    for buffer, value in there.named_buffers():
        torch.testing.assert_close(value.cpu(), statistics[buffer], atol=1e-6, rtol=1e-5, msg=buffer)


@pytest.mark.parametrize("name", ALL)
def test_a_step_waits_for_nothing(name, device):
    module, batch = stepped.of(name)
    stepped.move(module, device)
    stepped_once(module, batch, device)  # what is made once is made now
    batch = module.transfer_batch_to_device(batch, device, 0)
    with without_waits(device):
        module.training_step(batch, 1).backward()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_in_half_precision(name, dtype, device):
    if device.type != "cuda" and name in stepped.HEADS and dtype == torch.float16:
        pytest.skip("the CPU's batch norm in float16 is another matter")
    module, batch = stepped.of(name)
    stepped.move(module, device)
    plain = stepped_once(module, batch, device).item()
    module.zero_grad()
    with torch.autocast(device.type, dtype):
        loss = module.training_step(module.transfer_batch_to_device(batch, device, 0), 0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain, rel=0.1)
    assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ALL)
def test_a_loss_that_is_no_number_is_told_by_step_and_images(name, device):
    """On a GPU later than in its step, but of it: the first of two."""
    module, batch = stepped.of(name)
    stepped.move(module, device)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    numbers = batch[-1].flatten()
    names = ", ".join(module.finite.ids[i] for i in numbers.tolist())

    def two_steps():
        for step in (3, 4):
            module._trainer = SimpleNamespace(
                global_step=step, current_epoch=0, global_rank=0, world_size=1, is_last_batch=step == 4
            )
            stepped_once(module, batch if step == 3 else moved(batch, device), device)
            LossCheck().on_train_batch_end(module._trainer, module, None, batch, step)

    with pytest.raises(ModelError, match=f"the loss at step 3 is nan on the images {names}; a lower learning rate"):
        two_steps()


class Losses(LightningModule):
    def __init__(self, ids):
        super().__init__()
        self.finite = FiniteLosses(ids)


def test_losses_are_looked_at_every_32_steps_and_at_the_end_of_an_epoch(device):
    module = Losses(["a", "b", "c"])
    good, bad = (torch.tensor(v).to(device) for v in (1.0, float("inf")))
    images = torch.tensor([[2], [0]]).to(device)
    for step in range(looks.EVERY):
        module.finite.add(good, step)  # the last one looks
    with without_waits(device):
        for step in range(looks.EVERY - 2):
            module.finite.add(good, step)
    on_cpu = device.type == "cpu"
    if not on_cpu:
        with without_waits(device):
            module.finite.add(bad, 70, images)
    with pytest.raises(ModelError, match=f"the loss at step {71 if on_cpu else 70} is inf on the images c, a;"):
        module.finite.add(bad, 71, images)
    module.finite.check()  # it is told once
    callback = LossCheck()
    if not on_cpu:
        module.finite.add(bad, 5)
        callback.on_train_batch_end(SimpleNamespace(is_last_batch=False), module, None, None, 0)
        with pytest.raises(ModelError, match="the loss at step 5 is inf; a lower"):
            callback.on_train_batch_end(SimpleNamespace(is_last_batch=True, current_epoch=1), module, None, None, 0)
    callback.on_train_batch_end(SimpleNamespace(is_last_batch=True), LightningModule(), None, None, 0)


def test_a_number_is_no_fault(device):
    check_finite(torch.tensor(3.0).to(device), 0, ["a"])
    with pytest.raises(ModelError, match="the loss at step 2 is nan on the images a; a lower"):
        check_finite(torch.tensor(float("nan")).to(device), 2, ["a"])


def test_sending_waits_for_nothing(device):
    x = torch.arange(6).view(2, 3)
    with without_waits(device):
        there = send_to(x, device)
    assert there.device.type == device.type
    assert torch.equal(there.cpu(), x)
    assert send_to(there, there.device) is there


def test_constants_are_made_once_and_good_for_gradients(device):
    with torch.inference_mode():
        first = make_channel_tensor((0.25, 0.5), device)
    assert make_channel_tensor((0.25, 0.5), device) is first
    x = torch.ones(2, 1, 1).to(device).requires_grad_()
    (x * first).sum().backward()
    assert x.grad.flatten().tolist() == [0.25, 0.5]
