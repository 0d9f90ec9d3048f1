"""The tape: what it captures, what arrives, what it leaves behind."""

from __future__ import annotations

import threading
import weakref

import awkward
import garbage
import pytest
import simulated
import torch
import torch.nn.functional as F
from cases import random_state
from reference import record
from taped import picture, small
from torch import nn
from wrapped import same

import camplug
from camplug import LayerError, Tape


def test_activations_and_gradients_equal_textbook_hooks(device):
    model, x = small(device), picture(1, device)
    names = ["conv1", "bn1", "conv3", "act"]
    want, _ = record(model, names, x, lambda y: y[:, 2])
    with Tape(model, names) as tape:
        got = {str(la): (a, g) for la, a, g in tape.gradients(model(x)[:, 2])}
    for name, (a, g) in zip(names, want, strict=True):
        torch.testing.assert_close(got[name][0].cpu(), a)
        torch.testing.assert_close(got[name][1].cpu(), g)


def test_gradients_arrive_from_the_last_layer_to_the_first(device):
    model, x = small(device), picture(device=device)
    with Tape(model, "convs") as tape:
        order = [str(la) for la, _, _ in tape.gradients(model(x)[:, 2])]
    assert order == ["conv3", "conv2", "conv1"]


def test_stream_and_gradients_give_the_same(device):
    model, x = small(device), picture(device=device)
    pushed = {}
    with Tape(model, "convs") as tape:
        tape.backward(model(x)[:, 1], lambda la, a, g: pushed.update({str(la): g.clone()}))
    with Tape(model, "convs") as tape:
        pulled = {str(la): g.clone() for la, _, g in tape.gradients(model(x)[:, 1])}
    assert pushed.keys() == pulled.keys()
    assert all(same(pushed[k], pulled[k]) for k in pushed)


@pytest.mark.parametrize("pull", [True, False])
def test_no_two_gradients_are_alive_at_once(pull, device):
    model, x = small(device), picture(device=device)
    seen, alive_before = [], []

    def visit(layer, activation, gradient):
        garbage.collect()
        alive_before.append(sum(ref() is not None for ref in seen))
        seen.append(weakref.ref(gradient))

    with Tape(model, ["conv1", "conv2"]) as tape:
        score = model(x)[:, 1]
        if pull:
            for item in tape.gradients(score):
                visit(*item)
                del item
        else:
            tape.backward(score, visit)
    assert alive_before == [0, 0]


def test_leaving_the_loop_early_stops_the_backward_pass(device):
    if device.type == simulated.NAME:
        pytest.skip("a hook that raises ends the process there: torch's device guards in Python cannot be unwound")
    model, x = small(device), picture(device=device)
    threads = threading.active_count()
    with Tape(model, "convs") as tape:
        for layer, _, _ in tape.gradients(model(x)[:, 1]):
            assert str(layer) == "conv3"
            break
    garbage.collect()
    assert threading.active_count() == threads


def test_an_error_in_the_backward_pass_reaches_the_loop(device):
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise ArithmeticError("no derivative")

    class Model(awkward.FeatureModule):
        def features(self, x):
            return Bad.apply(super().features(x))

    model = Model().to(device, torch.float64)
    with Tape(model, "convs") as tape, pytest.raises(ArithmeticError, match="no derivative"):
        list(tape.gradients(model(picture(device=device))[:, 0]))


def test_several_scores_of_one_pass_with_retain_graph(device):
    model, x = small(device), picture(device=device)
    with Tape(model, "conv1") as tape:
        y = model(x)
        first = [g.clone() for _, _, g in tape.gradients(y[:, 0], retain_graph=True)]
        again = [g.clone() for _, _, g in tape.gradients(y[:, 0], retain_graph=True)]
        other = [g.clone() for _, _, g in tape.gradients(y[:, 1])]
        with pytest.raises((LayerError, RuntimeError)):
            list(tape.gradients(y[:, 0]))  # the graph is released
    assert same(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_every_call_of_a_reused_module_with_its_own_gradient(device):
    model, x = small(device, awkward.Reused), picture(1, device)
    want, _ = record(model, ["conv3"], x, lambda y: y[:, 2])
    with Tape(model, "conv3") as tape:
        got = {la.call: (a, g) for la, a, g in tape.gradients(model(x)[:, 2])}
    assert set(got) == {0, 1}
    for call, (a, g) in enumerate(want):
        torch.testing.assert_close(got[call][0].cpu(), a)
        torch.testing.assert_close(got[call][1].cpu(), g)


INPLACE = {
    "relu_": lambda t: F.relu(t, inplace=True),
    "silu_": lambda t: F.silu(t, inplace=True),
    "hardswish_": lambda t: F.hardswish(t, inplace=True),
    "relu6_": lambda t: F.relu6(t, inplace=True),
    "leaky_relu_": lambda t: F.leaky_relu(t, 0.2, inplace=True),
    "mul_": lambda t: t.mul_(2),
    "clamp_": lambda t: t.clamp_(-0.1, 0.1),
    "+=": lambda t: t.add_(1),
    "index": lambda t: t.index_fill_(2, torch.tensor([1]).to(t.device), 0.5),
    "view": lambda t: t.view(-1).mul_(3).view(t.shape),
    "out": lambda t: t.copy_(t.tanh()),
}


@pytest.mark.parametrize("name", INPLACE)
@pytest.mark.parametrize("grad", [False, True])
def test_the_value_at_the_layer_whatever_overwrites_it(name, grad, device):
    model, x = awkward.InPlace(INPLACE[name]).to(device, torch.float64).eval(), picture(1, device)
    names = ["conv1", "conv2", "conv3"]
    want, _ = record(model, names, x, lambda y: y[:, 2])
    with Tape(model, names, grad=grad) as tape:
        got = [(a.detach().clone(), g.clone()) for _, a, g in tape.gradients(model(x)[:, 2])]
    for (a, g), (wa, wg) in zip(got[::-1], want, strict=True):
        torch.testing.assert_close(a.cpu(), wa)
        torch.testing.assert_close(g.cpu(), wg)


def test_a_container_and_its_last_layer_hold_the_same(device):
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(400, 3))
    model.to(device, torch.float64)
    with Tape(model, ["0", "0.1"]) as tape:
        got = {str(la): (a, g) for la, a, g in tape.gradients(model(picture(device=device))[:, 0])}
    assert set(got) == {"0", "0.1"}
    assert torch.equal(got["0"][0], got["0.1"][0])
    assert torch.equal(got["0"][1], got["0.1"][1])


def test_parallel_branches_both_start_the_graph(device):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return torch.cat([self.left(x).relu().mean((2, 3)), 3 * self.right(x).mean((2, 3))], 1)

    model = Branches().to(device, torch.float64)
    with Tape(model, "convs") as tape:
        y = model(picture(1, device))
        got = {str(la): g for la, _, g in tape.gradients(y[:, 0] + y[:, 2])}
    assert torch.allclose(got["right"][:, 0].cpu(), torch.full((1, 10, 10), 0.03).double())
    assert got["left"][:, 1].abs().max() == 0


@pytest.mark.parametrize("put", ["tuple", "list", "dict", "named"])
def test_a_layer_that_puts_out_a_collection(put, device):
    from collections import namedtuple

    pair = namedtuple("pair", "first second")

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            made = {"tuple": (y, 1), "list": [y, 1], "dict": {"n": 1, "y": y}, "named": pair(y, 1)}
            return made[put]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Layer()

        def forward(self, x):
            out = self.layer(x)
            y = out["y"] if put == "dict" else out.first if put == "named" else out[0]
            return y.relu().mean((2, 3))

    model = Model().to(device, torch.float64)
    with Tape(model, "layer") as tape:
        ((layer, a, g),) = list(tape.gradients(model(picture(device=device))[:, 1]))
    assert str(layer) == "layer"
    assert a.shape == g.shape == (2, 4, 10, 10)
    torch.testing.assert_close(g[:, 1], (a[:, 1] > 0).double() / 100)


def test_grad_true_keeps_the_graph_for_losses(device):
    model, x = small(device, awkward.InPlace).train(), picture(device=device)
    with Tape(model, ["conv1", "conv3"], grad=True) as tape:
        y = model(x)
        loss = tape["conv1"].pow(2).mean() + tape["conv3"].mean() + y.mean()
    loss.backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    first = model.conv1(x)
    kept = [first.clone()]
    h = model.inplace(first)
    h = model.inplace(model.conv2(h))
    third = model.conv3(h)
    kept.append(third.clone())
    z = model.head(model.act(model.inplace(third + h)).mean((2, 3)))
    (kept[0].pow(2).mean() + kept[1].mean() + z.mean()).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(got[name], parameter.grad)


def test_grad_false_runs_as_in_evaluation_and_puts_everything_back(device):
    model, x = awkward.TrainOnly().to(device, torch.float64), picture(device=device)
    flags = [m.training for m in model.modules()]
    state, buffers = random_state(), model.bn1.running_mean.clone()
    with Tape(model) as tape:
        y = model(x)
        assert [m.training for m in model.modules()] == flags  # already when the pass is over
        assert all(p.requires_grad for p in model.parameters())
        list(tape.gradients(y[:, 0]))
    assert all(torch.equal(a, b) for a, b in zip(random_state(), state, strict=True))
    assert torch.equal(model.bn1.running_mean, buffers)
    assert all(p.grad is None for p in model.parameters())


def test_a_tape_starts_anew_with_every_pass_and_holds_nothing_afterwards(device):
    model, x = small(device), picture(device=device)
    with Tape(model, "convs") as tape:
        for _ in range(5):
            model(x)
            assert len(tape.captures) == 3
        held = [weakref.ref(a) for _, a in tape.captures]
        y = model(x)
    garbage.collect()
    assert all(ref() is None for ref in held)
    assert tape.captures == []
    y.sum()  # the output itself is the caller's


def test_two_tapes_on_one_model_do_not_see_each_other(device):
    model, x = small(device), picture(device=device)
    with Tape(model, "conv1") as outer:
        with Tape(model, "conv2") as inner:
            y = model(x)
            assert [str(la) for la, _ in inner.captures] == ["conv2"]
            assert [str(la) for la, _ in outer.captures] == ["conv1"]
            list(inner.gradients(y[:, 0], retain_graph=True))
        assert [str(la) for la, _, _ in outer.gradients(y[:, 0])] == ["conv1"]


def test_other_threads_are_not_recorded(device):
    model, x = small(device), picture(device=device)
    with Tape(model, "convs") as tape:
        thread = threading.Thread(target=lambda: model(x))
        thread.start()
        thread.join()
        assert tape.captures == []


def test_keyword_inputs_that_need_gradients(device):
    class Keyword(awkward.FeatureModule):
        def forward(self, *, image):
            return super().forward(image)

    model = small(device, Keyword)
    x = picture(1, device).requires_grad_()
    want, _ = record(_positional(model), ["conv1", "conv3"], x.detach(), lambda y: y[:, 2])
    with Tape(model, ["conv1", "conv3"]) as tape:
        got = [g.clone() for _, _, g in tape.gradients(model(image=x)[:, 2])]
    torch.testing.assert_close(got[1].cpu(), want[0][1])
    assert x.grad is None


def _positional(model):
    plain = small()
    plain.load_state_dict(model.state_dict())
    return plain


def test_a_scripted_submodule_is_a_layer():
    model = awkward.FeatureModule().double().eval()
    x = picture(1)
    want, _ = record(model, ["conv2"], x, lambda y: y[:, 2])
    try:
        model.conv2 = torch.jit.script(model.conv2)
    except Exception as error:
        pytest.skip(f"this torch cannot script: {error}")
    with Tape(model, "conv2") as tape:
        ((_, _, g),) = list(tape.gradients(model(x)[:, 2]))
    torch.testing.assert_close(g, want[0][1])


def test_stochastic_models_leave_the_random_state_alone():
    class Noisy(awkward.FeatureModule):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    model = Noisy().double()
    state = torch.get_rng_state()
    with Tape(model):
        model(picture())
        after = torch.get_rng_state()
    torch.set_rng_state(state)
    picture()  # only the picture was drawn
    assert torch.equal(torch.get_rng_state(), after)


def test_the_public_name():
    assert camplug.Tape is Tape
