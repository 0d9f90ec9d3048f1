"""Explainers from a line of text: what it builds, and that nothing in it is ever run."""

from __future__ import annotations

import builtins
import os

import awkward
import pytest
import torch

import camplug
from camplug import CAM, Compete, Dense, FullyCAM, GradCAM, InputError, MultiView, SplitUnite, create
from camplug.explain import registry
from camplug.explain.registry import get_method

METHODS = ", ".join(camplug.list_methods(fitted=True))
CLASSES = [get_method(name) for name in camplug.list_methods()]


@pytest.fixture
def model():
    return awkward.FeatureModule().eval()


def described(explainer):
    """An explainer and its options as plain values, so that two can be compared."""
    options = {k: described(v) if isinstance(v, camplug.Explainer) else v for k, v in vars(explainer).items()}
    return type(explainer), {k: v for k, v in options.items() if k != "model"}


# ---- what is built


def test_names_of_wrappers():
    assert camplug.list_wrappers() == [
        "classconditional",
        "compete",
        "dense",
        "finercam",
        "iterativeerasing",
        "multiview",
        "propagate",
        "propagateattention",
        "splitunite",
    ]
    assert camplug.list_wrappers("*e") == ["compete", "dense", "propagate", "splitunite"]
    assert not set(camplug.list_wrappers()) & set(camplug.list_methods())


@pytest.mark.parametrize("cls", CLASSES)
def test_every_method_by_its_class_name(cls, model):
    for text in (cls.__name__, f"{cls.__name__}()", f"MultiView({cls.__name__})"):
        made = create(text, model)
        assert type(made.explainer if isinstance(made, MultiView) else made) is cls
        assert made.model is model


LINES = {
    "FullyCAM()": FullyCAM,
    "fully(channel_norm=False)": lambda m: FullyCAM(m, channel_norm=False),
    "GradCAM('conv2')": lambda m: GradCAM(m, "conv2"),
    "GradCAM(['conv1', 'conv2'], layer_weighting=None)": lambda m: GradCAM(m, ["conv1", "conv2"], layer_weighting=None),
    "  MultiView( GradCAM )\n": lambda m: MultiView(GradCAM(m)),
    "MultiView(FullyCAM(channel_norm=False), scales=(0.5, 1), flip=True)": lambda m: MultiView(
        FullyCAM(m, channel_norm=False), scales=(0.5, 1), flip=True
    ),
    "multi_view(grad_cam, [1, 2], False, 'max', normalize=None)": lambda m: MultiView(
        GradCAM(m), [1, 2], False, "max", normalize=None
    ),
    "ClassConditional(MultiView(CAM, (1.0,)), 'repo', split={'smallest': 8}, erase={'max_iter': 2})": lambda m: (
        camplug.ClassConditional(
            MultiView(CAM(m), (1.0,)), "repo", split={"smallest": 8}, erase={"max_iter": 2}
        )
    ),
    "gradcam++(layer_weighting=None)": lambda m: camplug.GradCAMPlusPlus(m, layer_weighting=None),
    "Compete(MultiView(gradcam++), judge=Grad_CAM++)": lambda m: Compete(
        MultiView(camplug.GradCAMPlusPlus(m)), camplug.GradCAMPlusPlus(m)
    ),
    "Compete(FullyCAM, judge=CAM)": lambda m: Compete(FullyCAM(m), CAM(m)),
    "Compete(FullyCAM, MultiView(GradCAM('conv3'), (1,)), 3)": lambda m: Compete(
        FullyCAM(m), MultiView(GradCAM(m, "conv3"), (1,)), 3
    ),
    "SplitUnite(IterativeErasing(FullyCAM, stop=0.02), locate=FullyCAM, margins=(3, 4))": lambda m: SplitUnite(
        camplug.IterativeErasing(FullyCAM(m), stop=0.02), locate=FullyCAM(m), margins=(3, 4)
    ),
    "Dense(MultiView(Dense(GradCAM, 16)), output_stride=4)": lambda m: Dense(
        MultiView(Dense(GradCAM(m), 16)), output_stride=4
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_line_builds_what_it_says(line, model):
    made, want = create(line, model), LINES[line](model)
    assert described(made) == described(want)
    assert made.model is model
    assert made.name == want.name


def test_a_line_explains_what_its_objects_explain():
    model, x = awkward.FeatureModule().double().eval(), torch.randn(2, 3, 12, 12).double()
    made = create("Compete(MultiView(FullyCAM(channel_norm=False), (1, 1.5)), judge=CAM, power=3)", model)
    want = Compete(MultiView(FullyCAM(model, channel_norm=False), (1, 1.5)), CAM(model), 3)
    for a, b in zip(made.maps(x, [[3, 1], [0]]), want.maps(x, [[3, 1], [0]]), strict=True):
        assert torch.equal(a, b)


def test_options_are_the_innermost_methods(model):
    options = {"class_names": list("abcde"), "channel_norm": False}
    made = create("Compete(MultiView(FullyCAM(normalize=None)), judge=CAM)", model, **options)
    inner = made.explainer.explainer
    assert (inner.channel_norm, inner.normalize, inner.class_names) == (False, None, list("abcde"))
    assert made.class_names == made.explainer.class_names == list("abcde")
    assert create("fully(channel_norm=True)", model, **options).channel_norm is True  # the line has the last word
    assert create("fully", model, **options).channel_norm is False


# ---- refusals

UNKNOWN = f"available are {METHODS}."
UNREAD = 'cannot be read; write for instance "MultiView(FullyCAM, flip=True)".'
NONE = "is no explainer; write for instance MultiView(FullyCAM, flip=True)."
VALUES = "is no plain value; give numbers, texts in quotes, lists, True, False, None, or an explainer."
INSIDE = "MultiView wraps an explainer; write MultiView(FullyCAM)."

REFUSED = {
    "MultiView": f"there is no method 'MultiView'; {UNKNOWN} It is a wrapper; write what it wraps: "
    "MultiView(FullyCAM).",
    "MultiView()": INSIDE,
    "MultiView(scales=(1,))": INSIDE,
    "MultiView(explainer=CAM)": INSIDE,
    "Dense(MultiView)": INSIDE,
    "nothing": f"there is no method 'nothing'; {UNKNOWN}",
    "nothing(CAM)": f"there is no method 'nothing'; {UNKNOWN}",
    "MultiVeiw(CAM)": f"there is no method 'MultiVeiw'; {UNKNOWN} Did you mean 'multiview'?",
    "MultiView(gradcma)": f"there is no method 'gradcma'; {UNKNOWN} Did you mean 'gradcam'?",
    "MultiView(CAM": f"'MultiView(CAM' {UNREAD}",
    "MultiView(gradcam+)": f"'MultiView(gradcam+)' {UNREAD}",
    "MultiView(CAM); 1": f"'MultiView(CAM); 1' {UNREAD}",
    "CAM(\0)": f"'CAM(\\x00)' {UNREAD}",
    "MultiView('CAM')": f"""\"'CAM'\" in "MultiView('CAM')" {NONE}""",
    "MultiView(*CAM)": f"'*CAM' in 'MultiView(*CAM)' {NONE}",
    "MultiView(CAM, **{})": f"'MultiView(CAM, **{{}})' in 'MultiView(CAM, **{{}})' {NONE}",
    "-CAM()": f"'-CAM()' in '-CAM()' {NONE}",
    "CAM()()": f"'CAM()()' in 'CAM()()' {NONE}",
    "(lambda: 1)()": f"'(lambda: 1)()' in '(lambda: 1)()' {NONE}",
    "MultiView(CAM, scales=1 + 2)": f"'1 + 2' in 'MultiView(CAM, scales=1 + 2)' {VALUES}",
    "GradCAM([conv1])": f"'[conv1]' in 'GradCAM([conv1])' {VALUES}",
    "MultiView(CAM, {[1]: 2})": f"'{{[1]: 2}}' in 'MultiView(CAM, {{[1]: 2}})' {VALUES}",
    "GradCAM(*['a'])": f"""\"*['a']\" in "GradCAM(*['a'])" {VALUES}""",
    "MultiView(CAM, scale=2)": "'MultiView(CAM, scale=2)' does not fit MultiView: got an unexpected keyword argument "
    "'scale'",
    "CAM(channel_norm=True)": "'CAM(channel_norm=True)' does not fit CAM: got an unexpected keyword argument "
    "'channel_norm'",
    "CAM('act', 3)": "\"CAM('act', 3)\" does not fit CAM: takes from 2 to 3 positional arguments but 4 were given.",
    "MultiView(CAM, scales=0)": "scales=0; give positive factors, for instance (0.5, 1.0, 1.5, 2.0).",
    "IterativeErasing(CAM, threshold='x')": "threshold='x', stop=0.01, max_iter=5, stop_probability=0.0: threshold "
    "lies between 0 and 1, stop and stop_probability from 0 to 1, and max_iter is a whole number of at least 1.",
    "Dense(CAM, 3)": "output_stride=3; allowed are the powers of two: 1, 2, 4, 8, 16, 32.",
    "Compete(CAM, judge='CAM')": "judge='CAM' is no explainer; give for instance judge=camplug.CAM(model).",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refusals(line, model):
    with pytest.raises(InputError) as error:
        create(line, model)
    assert str(error.value).startswith(REFUSED[line])
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize("line", ["(" * 5000 + ")" * 5000, "MultiView(CAM, " + "-" * 100_000 + "1)"])
def test_endless_nesting_is_refused(line, model):
    with pytest.raises(InputError, match="cannot be read"):
        create(line, model)


@pytest.mark.parametrize(
    "line",
    [
        "__import__('os').system('touch here')",
        "__import__('os')",
        'eval(\'open("here", "w")\')',
        "MultiView(__import__('os').system('touch here'))",
        "MultiView(CAM, scales=__import__('os').system('touch here'))",
        "MultiView(CAM, scales=[open('here', 'w')])",
        "CAM.__init__.__globals__['os'].system('touch here')",
        "CAM(layers=(lambda: open('here', 'w'))())",
        "CAM(layers=[open('here', 'w') for _ in 'a'])",
        'CAM(layers=f\'{open("here", "w")}\')',
        "MultiView(CAM, (x := open('here', 'w')))",
        "camplug.CAM(1)",
        "builtins.exec(1)",
    ],
)
def test_nothing_is_ever_run(line, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module, name in ((builtins, "eval"), (builtins, "exec"), (builtins, "open"), (os, "system")):
        monkeypatch.setattr(module, name, lambda *a, name=name: pytest.fail(f"{name} was called"))
    with pytest.raises(InputError, match=r"is no explainer|is no plain value|there is no method"):
        create(line, model)
    assert not list(tmp_path.iterdir())


def test_a_name_is_given_once():
    for register in (camplug.register, camplug.register_wrapper):
        for name in ("fully", "multiview"):
            with pytest.raises(InputError, match=f"the name .{name}. is taken by camplug"):
                register(name)(GradCAM)
    assert GradCAM.name == "gradcam"


def test_an_own_wrapper_is_available(model, monkeypatch):
    monkeypatch.setattr(registry, "_wrappers", dict(registry._wrappers))

    @camplug.register_wrapper("twice")
    class Twice(camplug.Wrapper):
        def run(self, x, classes, size=None):
            return self.explainer.run(x, classes, size)

    made = create("MultiView(Twice(CAM, normalize=None), (1,))", model)
    assert isinstance(made.explainer, Twice)
    assert made.explainer.normalize is None
    assert "twice" in camplug.list_wrappers()
    assert made.name == "multiview(twice(cam))"


def test_best_stands_for_an_expression(model):
    made = camplug.best_seeds(model, class_names=["a", "b"])
    assert made.name == "propagate(compete(multiview(fully)))"
    assert made.class_names == ["a", "b"]
    assert described(create("best", model, class_names=["a", "b"])) == described(made)
    assert described(create("Dense(best, 1)", model)) == described(Dense(camplug.best_seeds(model), 1))
    for kept in ("CAM", "Best(CAM)", "LPCAM(prototypes='a best one.npz')", "import:best:CAM", "Dense(CAM, best=1)"):
        assert registry.expand_recipes(kept) == kept


def test_an_explainer_shows_how_it_was_made():
    model = awkward.Plain()
    assert repr(FullyCAM(model)) == "FullyCAM(Plain, layers='convs')"
    inner = FullyCAM(model, layers=["conv1"], normalize="minmax")
    wrapped = MultiView(inner, scales=(1, 2))
    assert repr(wrapped) == "MultiView(FullyCAM(Plain, layers=['conv1'], normalize='minmax'), scales=(1.0, 2.0))"
