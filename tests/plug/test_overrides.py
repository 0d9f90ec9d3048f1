"""Settings that hold for a while: the module as before afterwards, nested, shared by threads, copied and compiled."""

from __future__ import annotations

import copy
import threading
import weakref
from contextlib import nullcontext

import awkward
import garbage
import pytest
import torch
from torch import nn

from camplug import GradCAM, Tape
from camplug.plug import dense, overrides
from camplug.plug.overrides import Overrides, lift_overrides, override_attributes


class Stages(nn.Module):
    """Convolution, pooling and padding of the kinds that dense inference changes; normalisation, dropout, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.reflect = nn.Conv2d(4, 4, 3, 1, 1, padding_mode="reflect")
        self.average = nn.AvgPool2d(2)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(4, 4, 3, padding="same")
        self.head = nn.Linear(4, 5)
        self.fails = False

    def maps(self, x):
        x = self.act(self.norm(self.stem(x)))
        x = self.average(self.reflect(self.pool(x)))
        if self.fails:
            raise ArithmeticError("broken on purpose")
        return self.last(self.drop(x))

    def forward(self, x):
        return self.head(self.maps(x).mean((2, 3)))


def stages():
    return Stages().double().eval()


def picture(n=1):
    return torch.randn(n, 3, 32, 32).double()


def state(model):
    """Everything that could be left behind: attributes by identity and in order, repr, flags, weights by value."""
    return (
        repr(model),
        [{name: id(value) for name, value in m.__dict__.items()} for m in model.modules()],
        [list(m.__dict__) for m in model.modules()],
        [m.training for m in model.modules()],
        {name: (id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()},
        {name: value.tolist() for name, value in model.state_dict().items()},
    )


@pytest.fixture(autouse=True)
def _nothing_held(_steady):
    torch.set_num_threads(1)  # bit-equal in every thread
    yield
    assert overrides._held == []


@torch.no_grad()
def results(model, x, *strides):
    """What the model puts out at each output stride, and as built."""
    found = {None: model(x)}
    for stride in strides:
        with dense(model, stride, example=x):
            found[stride] = model(x)
    return found


# ---- settings by themselves


def test_put_on_and_lifted():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    before = state(model)
    with override_attributes(Overrides(model, {model[0]: {"stride": (2, 2)}, model[1]: {"forward": torch.neg}})):
        assert model[0].stride == (2, 2)
        assert model[1](torch.ones(1)) == -1
        assert state(model) != before
        with lift_overrides(model.modules()):
            assert state(model) == before
            with lift_overrides(model.modules()):
                assert state(model) == before
            assert state(model) == before
        assert model[0].stride == (2, 2)
    assert state(model) == before


def test_of_two_the_inner_ones_count_and_the_outer_ones_come_back():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    before = state(model)
    with override_attributes(Overrides(model, {model[0]: {"stride": (2, 2), "dilation": (3, 3)}})):
        with override_attributes(Overrides(model, {model[0]: {"stride": (4, 4)}})):
            assert (model[0].stride, model[0].dilation) == ((4, 4), (3, 3))
            with lift_overrides(model.modules()):
                assert state(model) == before
            assert (model[0].stride, model[0].dilation) == ((4, 4), (3, 3))
        assert (model[0].stride, model[0].dilation) == ((2, 2), (3, 3))
    assert state(model) == before


def test_as_built_touches_only_the_models_that_are_meant():
    one, other = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Conv2d(3, 4, 3))
    with (
        override_attributes(Overrides(one, {one[0]: {"stride": (2, 2)}})),
        override_attributes(Overrides(other, {other[0]: {"stride": (2, 2)}})),
        lift_overrides(other.modules()),
    ):
        assert one[0].stride == (2, 2)
        assert other[0].stride == (1, 1)


def test_a_part_of_a_model_is_as_built_too():
    whole = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with override_attributes(Overrides(whole, {whole[0][0]: {"stride": (2, 2)}})):
        with lift_overrides(whole[0].modules()):
            assert whole[0][0].stride == (1, 1)
        assert whole[0][0].stride == (2, 2)


@pytest.mark.parametrize("where", ["holding", "as_built"])
def test_an_error_in_the_block(where):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    before = state(model)
    inside = lift_overrides(model.modules()) if where == "as_built" else nullcontext()
    with pytest.raises(ArithmeticError), override_attributes(Overrides(model, {model[0]: {"stride": (2, 2)}})), inside:
        raise ArithmeticError
    assert state(model) == before


# ---- the dense network: as before afterwards


@pytest.mark.parametrize("output_stride", [8, 4, 2, 1])
@pytest.mark.parametrize("mode", [False, True])
def test_the_model_is_as_before(output_stride, mode):
    model, x = stages().train(mode), picture(2)
    model.last.eval()  # flags that are not all the same
    model.norm.weight.requires_grad_(False)
    before, random = state(model), torch.get_rng_state()
    for _ in range(2):  # with the plan and without
        with dense(model, output_stride, example=x):
            changed = repr(model) != before[0]
            assert changed == (output_stride < 8)
            assert [m.training for m in model.modules()] == before[3]
        assert state(model) == before
        assert torch.equal(torch.get_rng_state(), random)
        assert not any("forward" in m.__dict__ for m in model.modules())


def test_outputs_are_bit_equal_afterwards():
    model, x = stages(), picture()
    y = model(x)
    with dense(model, 1, example=x):
        assert not torch.equal(model(x), y)
    assert torch.equal(model(x), y)


@pytest.mark.parametrize("plan_first", [False, True])
def test_errors_in_the_block_and_in_the_forward_pass(plan_first):
    model, x = stages(), picture()
    if plan_first:
        with dense(model, 1, example=x):
            pass
    before = state(model)
    with pytest.raises(KeyError), dense(model, 1, example=x):
        raise KeyError
    assert state(model) == before
    with dense(model, 1, example=x):
        model.fails = True
        with pytest.raises(ArithmeticError):
            model(x)
        model.fails = False
    assert state(model) == before


def test_a_forward_pass_that_fails_while_the_layout_is_found():
    model, x = stages(), picture()
    model.fails = True
    before = state(model)
    with pytest.raises(Exception, match=r"does not take the example .*broken on purpose"), dense(model, 1, example=x):
        pass
    assert state(model) == before
    model.fails = False
    with dense(model, 1, example=x):
        assert model.maps(x).shape[2:] == (32, 32)


def test_a_model_that_draws_random_numbers():
    class Noisy(Stages):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    model, x = Noisy().double(), picture()
    running, random = model.norm.running_mean.clone(), torch.get_rng_state()
    with dense(model, 1, example=x):
        assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model.norm.running_mean, running)


@pytest.mark.parametrize(("outer", "inner"), [(1, 2), (2, 1), (1, 8), (8, 1), (2, 2)])
@pytest.mark.parametrize("known", [False, True])
def test_nested_the_inner_stride_counts(outer, inner, known):
    model, x = stages(), picture()
    before, want = state(model), results(copy.deepcopy(model), x, 1, 2, 8)
    if known:
        results(model, x, outer, inner)
    with torch.no_grad():
        with dense(model, outer, example=x):
            with dense(model, inner, example=x):
                assert torch.equal(model(x), want[inner])
                with Tape(model, "stages", forward_only=True) as tape:  # looks at the model as built
                    assert torch.equal(model(x), want[inner])
                    assert [str(la) for la, _ in tape.captures] == ["act", "reflect", "last"]
                assert torch.equal(model(x), want[inner])
            assert torch.equal(model(x), want[outer])
            with pytest.raises(KeyError), dense(model, inner, example=x):
                raise KeyError
            assert torch.equal(model(x), want[outer])
        assert torch.equal(model(x), want[None])
    assert state(model) == before


def test_a_part_of_a_dense_model_is_planned_as_built():
    model, x = nn.Sequential(stages(), nn.ReLU()), picture()
    want = results(copy.deepcopy(model[0]), x, 2)
    with dense(model, 1, example=x), dense(model[0], 2, example=x), torch.no_grad():
        assert torch.equal(model[0](x), want[2])
    with dense(model[0], 2, example=x), torch.no_grad():
        assert torch.equal(model[0](x), want[2])


def test_open_tapes_hear_nothing_of_the_search():
    model, x = stages(), picture()
    with Tape(model, "convs") as tape:
        with dense(model, 1, example=x):
            assert tape.captures == []
            model(x)
            assert [tuple(a.shape[2:]) for _, a in tape.captures] == [(32, 32)] * 3
        model(x)
        assert [tuple(a.shape[2:]) for _, a in tape.captures] == [(16, 16), (8, 8), (4, 4)]


def test_nothing_keeps_the_model_alive():
    model, x = stages(), picture()
    with dense(model, 1, example=x):
        model(x)
    ref = weakref.ref(model)
    del model
    garbage.collect()
    assert ref() is None


def test_exchanged_layers_are_planned_anew():
    model, x = stages(), picture()
    results(model, x, 1)
    model.average = nn.Identity()
    fresh = copy.deepcopy(model)
    assert torch.equal(results(model, x, 1)[1], results(fresh, x, 1)[1])


# ---- threads


def test_two_threads_at_different_strides():
    model, x = stages(), picture()
    want = results(copy.deepcopy(model), x, 1, 2)
    before, start, wrong = state(model), threading.Barrier(2), []

    def work(stride):
        start.wait()
        for _ in range(20):
            with torch.no_grad(), dense(model, stride, example=x):
                wrong.extend([stride] * (not torch.equal(model(x), want[stride])))

    threads = [threading.Thread(target=work, args=(stride,)) for stride in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert state(model) == before


def test_two_models_do_not_wait_for_each_other():
    one, other, x = stages(), stages(), picture()
    done = threading.Event()

    def work():
        with dense(other, 1, example=x):
            done.set()

    with dense(one, 1, example=x):
        thread = threading.Thread(target=work)
        thread.start()
        assert done.wait(60)
        thread.join()


# ---- copies and compiled code


@torch.no_grad()
def test_a_deep_copy_from_inside_the_block_is_its_own():
    model, x = stages(), picture()
    want = results(copy.deepcopy(model), x, 1)
    with dense(model, 1, example=x):
        twin = copy.deepcopy(model)
        assert torch.equal(twin(x), want[1])
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(twin(x), want[1])
    assert model(x).abs().max() == 0
    for parameter in twin.parameters():
        parameter.zero_()
    assert twin(x).abs().max() == 0


def test_weights_that_change_in_the_block_count():
    model, x = stages(), picture()
    with dense(model, 1, example=x), torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
        got = model(x)
    assert torch.equal(got, results(copy.deepcopy(model), x, 1)[1])


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_inside(model):
    model.last = torch.compile(model.last, backend="eager")
    return model


@pytest.mark.parametrize("how", [compiled, compiled_in_place, compiled_inside])
def test_compiled_models(how):
    model, x = stages(), picture()
    want = results(copy.deepcopy(model), x, 1)
    torch.compiler.reset()
    model = how(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x), want[None])
        for _ in range(2):
            with dense(model, 1, example=x) as same:
                assert same is model
                torch.testing.assert_close(model(x), want[1])
            torch.testing.assert_close(model(x), want[None])


def test_data_parallel():
    model, x = stages(), picture()
    wrapped = nn.DataParallel(model)
    want = results(copy.deepcopy(model), x, 1)
    with dense(wrapped, 1, example=x), torch.no_grad():
        assert torch.equal(model(x), want[1])


def test_explainers_in_the_block_and_after_it():
    model, x = awkward.FeatureModule().double().eval(), torch.randn(2, 3, 12, 12).double()
    explainer = GradCAM(model)
    before = state(model)
    built = explainer.maps(x, 1)
    with dense(model, 1, example=x):
        assert not torch.equal(explainer.maps(x, 1), built)
    assert torch.equal(explainer.maps(x, 1), built)
    assert state(model) == before
