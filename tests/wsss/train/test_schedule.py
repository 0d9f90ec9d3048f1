"""Learning rates by hand, and which optimizer a name stands for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from camplug.errors import InputError
from camplug.wsss.train import ScheduleSettings


def rates(schedule, steps):
    return [schedule.get_factor(step, steps) for step in range(steps)]


def test_rates():
    assert rates(ScheduleSettings(power=1.0), 4) == [1, 0.75, 0.5, 0.25]
    assert rates(ScheduleSettings(), 5) == pytest.approx([1, 0.8**0.9, 0.6**0.9, 0.4**0.9, 0.2**0.9])
    assert rates(ScheduleSettings(power=0.0), 3) == [1, 1, 1]
    # rising over the first 4 of 8 steps, while the decay goes on
    assert rates(ScheduleSettings(power=1.0, warmup=0.5), 8) == pytest.approx(
        [1 / 4, 7 / 8 / 2, 6 / 8 * 3 / 4, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert rates(ScheduleSettings(power=1.0, warmup=0.1), 4) == rates(
        ScheduleSettings(power=1.0), 4
    )  # less than one step
    assert ScheduleSettings().get_factor(9, 5) == 0  # beyond the end


def trained(schedule, factor=1.0, steps=3, device="cpu"):
    """One weight w under the loss w**2 / 2, so that its gradient is w; the weight after each step."""
    module = nn.Linear(1, 1, bias=False, device=device)
    with torch.no_grad():
        module.weight.fill_(1.0)
    made = schedule.make_optimizers([(module, factor)], steps)
    assert made["lr_scheduler"]["interval"] == "step"
    weights = []
    for _ in range(steps):
        made["optimizer"].zero_grad()
        (module.weight**2 / 2).sum().backward()
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
        weights.append(module.weight.item())
    return weights


@pytest.mark.parametrize("momentum,decay,factor", [(0, 0, 1), (0, 0.1, 1), (0.9, 0, 1), (0.5, 0.2, 10)])
def test_sgd_by_hand(momentum, decay, factor, device):
    w, speed, expected = 1.0, 0.0, []
    for step in range(3):
        speed = momentum * speed + w + decay * w
        w -= 0.05 * factor * (1 - step / 3) ** 0.9 * speed
        expected.append(w)
    schedule = ScheduleSettings(lr=0.05, momentum=momentum, weight_decay=decay)
    assert trained(schedule, factor, device=device) == pytest.approx(expected, rel=1e-5)


def test_momentum_is_zero_unless_asked_for_and_decay_is_no_momentum():
    optimizer = ScheduleSettings(weight_decay=5e-4).make_optimizers([(nn.Linear(1, 1), 2.0)], 9)["optimizer"]
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0, 5e-4, False)
    assert group["initial_lr"] == 0.1 * 2


def test_adamw():
    modules = nn.Linear(1, 1), nn.Linear(2, 1)
    made = ScheduleSettings("adamw", lr=1e-3, weight_decay=0.02).make_optimizers(
        [(modules[0], 1.0), (modules[1], 10.0)], 9
    )
    assert type(made["optimizer"]) is torch.optim.AdamW
    assert [g["initial_lr"] for g in made["optimizer"].param_groups] == pytest.approx([1e-3, 1e-2])
    assert {g["weight_decay"] for g in made["optimizer"].param_groups} == {0.02}


@pytest.mark.parametrize(
    "options,says",
    [
        ({"optimizer": "adam"}, "optimizer='adam'; allowed are sgd, adamw."),
        ({"lr": -1}, "lr=-1; give at least 0."),
        ({"lr": float("nan")}, "lr=nan; give"),
        ({"momentum": 1}, "momentum=1; give at least 0 and less than 1."),
        ({"warmup": 1}, "warmup=1; give at least 0 and less than 1."),
        ({"weight_decay": -0.1}, "weight_decay=-0.1; give at least 0."),
        ({"power": -1}, "power=-1; give at least 0."),
    ],
)
def test_numbers_out_of_range(options, says):
    with pytest.raises(InputError) as error:
        ScheduleSettings(**options)
    assert says in str(error.value)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.2), (2, 0.2), (3, 0.0), (4, 0.2), (10, 0.3), (10, 0.99)])
def test_one_cycle_rises_and_falls(steps, warmup):
    layer = nn.Linear(1, 1)
    made = ScheduleSettings(lr=0.5, shape="one-cycle", warmup=warmup).make_optimizers(
        [(layer, 1.0), (nn.Linear(1, 1), 4.0)], steps
    )
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[1]["lr"] == pytest.approx(4 * seen[-1])
        optimizer.step()
        scheduler.step()
    assert seen[0] == pytest.approx(0.5 / 25)
    top = seen.index(max(seen))
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    if steps == 10:
        assert max(seen) == pytest.approx(0.5)
        assert top == {0.3: 2, 0.99: 8}[warmup]


def test_an_unknown_shape_is_refused():
    with pytest.raises(InputError, match="shape='square'; allowed are poly, one-cycle"):
        ScheduleSettings(shape="square")
