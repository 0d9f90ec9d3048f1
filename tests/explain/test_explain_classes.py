"""Classes by index, name and label; scores, probabilities and titles of models of every kind of output."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from bright_squares import BRIGHT, KEPT, NEITHER, Bright, assert_follows, grad_cam, photo
from PIL import Image

from camplug import Against, EigenCAM, GradCAM
from camplug.errors import TargetError

# ---- classes


def test_classes_by_index_name_list_and_none():
    explainer = grad_cam()
    by_index = explainer.explain(photo(), BRIGHT)
    assert (by_index.classes, by_index.names, by_index.method) == ([0], ["bright spot"], "gradcam")
    for same in ("bright spot", "Bright", "0", np.int64(0), torch.tensor(0), [0], ["spot"], torch.tensor([0])):
        result = explainer.explain(photo(), same)
        assert result.classes == [0]
        assert torch.equal(result.maps, by_index.maps)
    several = explainer.explain(photo(), ["dark ground", 0])
    assert several.classes == [1, 0]
    assert several.names == ["dark ground", "bright spot"]
    torch.testing.assert_close(several.maps[1], by_index.maps[0])
    predicted = explainer.explain(photo())
    assert predicted.classes == [1]  # mostly black
    torch.testing.assert_close(predicted.maps[0], several.maps[0])
    assert predicted.scores == pytest.approx([float(predicted.logits[1])])


def test_scores_are_the_models_logits():
    model = Bright()
    result = grad_cam(model=model).explain(photo(), [1, 0])
    x, _ = KEPT(Image.fromarray(photo()))
    logits = model(x[None])[0].detach()
    torch.testing.assert_close(result.logits, logits)
    assert result.scores == pytest.approx([float(logits[1]), float(logits[0])])
    torch.testing.assert_close(result.probabilities(), logits.softmax(0))
    assert result.top(1)[0][:2] == (1, "dark ground")
    assert result.all_names == model.class_names


def test_a_callable():
    explainer = grad_cam()
    result = explainer.explain(photo(), lambda out: out[:, BRIGHT] * 3)
    assert (result.classes, result.names) == ([-1], ["score"])
    assert np.isnan(result.scores[0])
    torch.testing.assert_close(result.maps, explainer.explain(photo(), BRIGHT).maps)
    both = explainer.explain([photo(), photo()], lambda out: out[:, BRIGHT])
    torch.testing.assert_close(both[1].maps, result.maps)


def test_one_entry_per_photograph():
    explainer = grad_cam()
    photos = [photo(), photo(60, 60, (10, 10, 34, 34)), photo()]
    results = explainer.explain(photos, ["bright", 1, [1, "bright"]])
    assert [r.classes for r in results] == [[0], [1], [1, 0]]
    for result, source in zip(results, photos, strict=True):
        torch.testing.assert_close(result.maps, explainer.explain(source, result.classes).maps)
    assert [r.classes for r in explainer.explain(photos, torch.tensor([0, 1, 0]))] == [[0], [1], [0]]
    assert [r.classes for r in explainer.explain(photos, "dark")] == [[1]] * 3
    assert [r.classes for r in explainer.explain(photos)] == [[1], [1], [1]]


def test_no_class():
    result = grad_cam().explain(photo(), [])
    assert (result.classes, result.names, result.scores) == ([], [], [])
    assert result.maps.shape == (0, 80, 120)


@pytest.mark.parametrize(
    "source,classes,says",
    [
        (photo(), 3, "class 3 is outside the model's 3 classes; allowed are 0 to 2"),
        (photo(), -1, "class -1 is outside"),
        (photo(), "dirk ground", r"no class is called 'dirk ground'; did you mean dark ground \(1\)"),
        (photo(), 0.5, "0.5 is no class index"),
        ([photo()] * 3, [0, 1], "2 entries in classes for 3 images; give one class for all, or one entry per image"),
        ([photo()], [0, 1], "2 entries in classes for 1 images"),
    ],
)
def test_classes_that_do_not_exist(source, classes, says):
    with pytest.raises(TargetError, match=says):
        grad_cam().explain(source, classes)


def test_labels():
    explainer = grad_cam(class_names=["hell", "dunkel", "weder"])
    assert explainer.explain(photo(), "dunkel").classes == [1]
    assert explainer.explain(photo(), 0).names == ["hell"]
    with pytest.raises(TargetError, match="class_names= holds 2 names, but the model has 3 classes"):
        grad_cam(class_names=["a", "b"]).explain(photo(), 0)


def test_without_names():
    model = Bright()
    del model.class_names
    result = grad_cam(model=model).explain(photo(), 0)
    assert result.names == ["class 0"]
    assert result.all_names is None
    with pytest.raises(TargetError, match="the model has no class names"):
        grad_cam(model=model).explain(photo(), "bright")


def test_names_work_in_any_number_format():
    result = grad_cam(model=Bright().double()).explain(photo(), "bright")
    assert result.classes == [0]
    assert result.maps.dtype == torch.float32
    assert_follows(result, (30, 20, 54, 44))


# ---- what the outputs are


class Ends(Bright):
    """`Bright` with something after its logits, or with fewer of them."""

    def __init__(self, end, outputs=3):
        super().__init__()
        self.end, self.outputs = end, outputs
        self.class_names = self.class_names[:outputs] if outputs > 1 else ["dark ground", "bright spot"]

    def forward(self, x):
        return self.end(super().forward(x)[:, : self.outputs])


def logits_of_photo():
    return Bright()(KEPT(Image.fromarray(photo()))[0][None])[0].detach()


@pytest.mark.parametrize(
    "end", [lambda z: (z.softmax(1), z), lambda z: z.softmax(1), lambda z: z.log_softmax(1)],
    ids=["both", "probabilities", "log"],
)  # fmt: skip
@pytest.mark.parametrize("method", [GradCAM, EigenCAM])
def test_probabilities_are_not_made_twice(end, method):
    p = logits_of_photo().softmax(0)
    result = method(Ends(end), "features", preprocess=KEPT).explain(photo(), 1)
    torch.testing.assert_close(result.probabilities(), p)
    assert [(i, name) for i, name, _ in result.top()] == [(1, "dark ground"), (0, "bright spot"), (2, "neither")]
    assert result.top(1)[0][2] == pytest.approx(float(p[1]))
    assert result.title() == f"dark ground\n{p[1]:.1%} (softmax)"


def test_saturated_probabilities_are_told_of():
    model = Ends(lambda z: (1000 * z).softmax(1))
    with pytest.warns(
        UserWarning, match="puts out probabilities, and the explained one is 1 up to rounding for image 0"
    ):
        grad_cam(model=model).explain(photo())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grad_cam(model=Ends(lambda z: ((1000 * z).softmax(1), 1000 * z))).explain(photo())


@pytest.mark.parametrize("end", [lambda z: z, torch.sigmoid, lambda z: z[:, 0]], ids=["logit", "sigmoid", "vector"])
def test_one_output_has_two_sides(end):
    z = float(logits_of_photo()[0])
    p = 1 / (1 + np.exp(-z))
    explainer = grad_cam(model=Ends(end, 1))
    yes = explainer.explain(photo(), "bright spot")
    assert (repr(yes.classes), yes.names) == ("[0]", ["bright spot"])
    torch.testing.assert_close(yes.maps, grad_cam().explain(photo(), BRIGHT).maps)
    assert [(repr(i), n, pytest.approx(v)) for i, n, v in yes.top()] == [
        ("0", "bright spot", p), ("Against(0)", "dark ground", 1 - p),
    ]  # fmt: skip
    assert yes.title() == f"bright spot\n{p:.1%} (sigmoid)"
    shifted = grad_cam(model=Ends(lambda t: end(t - 2 * z), 1))  # now it says no
    with pytest.warns(UserWarning, match="no positive evidence for 'dark ground'"):  # no place of it is negative
        no = shifted.explain(photo())
    assert (repr(no.classes), no.names) == ("[Against(0)]", ["dark ground"])
    assert no.top(1)[0][1] == "dark ground"
    assert no.probability() == pytest.approx(p)
    assert repr(shifted.explain(photo(), no.classes).classes) == "[Against(0)]"


def test_one_output_without_names():
    model = Ends(lambda z: z, 1)
    model.class_names = None
    result = grad_cam(model=model).explain(photo())
    assert result.names == ["positive"]
    assert [name for _, name, _ in result.top()] == ["positive", "negative"]
    labelled = grad_cam(model=model, class_names=["no", "yes"])
    assert (labelled.explain(photo()).names, labelled.explain(photo(), "yes").names) == (["yes"], ["yes"])
    assert grad_cam(model=model, class_names=["spot"]).explain(photo()).names == ["spot"]
    with pytest.raises(
        TargetError, match=r"class_names= holds 3 names, but the model has 1 classes or 2 \(for no and yes\)"
    ):
        grad_cam(model=model, class_names=["a", "b", "c"]).explain(photo())


def test_negative_evidence_is_named_so():
    explainer = grad_cam(evidence="negative")
    result = explainer.explain(photo(), [NEITHER, BRIGHT])
    p = logits_of_photo().softmax(0)
    assert result.names == ["neither", "bright spot"]
    assert result.title() == f"against neither\n{p[NEITHER]:.1%} (softmax)"
    assert (result.maps[0] > 0).any()
    torch.testing.assert_close(result.maps[:1], grad_cam().explain(photo(), Against(NEITHER)).maps)
    against = grad_cam().explain(photo(), Against(NEITHER))
    assert against.title() == f"not neither\n{1 - p[NEITHER]:.1%} (softmax)"


def test_multi_label_models_have_sigmoids():
    model = Bright()
    model.multi_label = True
    result = grad_cam(model=model).explain(photo(), BRIGHT)
    torch.testing.assert_close(result.probabilities(), logits_of_photo().sigmoid())
    assert result.title().endswith("(sigmoid)")
    torch.testing.assert_close(result.probabilities(multi_label=False), logits_of_photo().softmax(0))


@pytest.mark.filterwarnings("ignore:no positive evidence")
@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float32])
def test_labels_of_photographs(kind):
    explainer = grad_cam()
    rows = torch.tensor([[1, 0, 1], [0, 1, 0]])
    photos = [photo(), photo(60, 60, (10, 10, 34, 34))]
    for labels in (rows.to(kind), rows.to(kind).numpy(), rows.to(kind).tolist()):
        assert [r.classes for r in explainer.explain(photos, labels)] == [[0, 2], [1]]
        assert explainer.explain(photo(), labels[0]).classes == [0, 2]
        assert explainer.explain(photo(), labels[:1]).classes == [0, 2]
    with pytest.raises(TargetError, match="labels need one column per class"):
        explainer.explain(photos, rows[:, :2].to(torch.bool))
    assert explainer.explain(photo(), torch.tensor([2, 1])).classes == [2, 1]


@pytest.mark.parametrize("end", [torch.squeeze, lambda z: (z.softmax(1).squeeze(), z.squeeze())])
def test_squeezed_outputs_of_one_photograph(end):
    result = grad_cam(model=Ends(end)).explain(photo())
    assert (result.classes, result.names) == ([1], ["dark ground"])
    torch.testing.assert_close(result.logits, logits_of_photo())
