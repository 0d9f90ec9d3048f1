"""Iterative erasing: golden numbers, the slow reference, how many passes are run, what is erased."""

from __future__ import annotations

import numpy as np
import pytest
import slow
import torch
from wrapped import Channels, Means, Recording, Scripted, chances, looking, model_and_batch, same

from camplug import FullyCAM, GradCAM, InputError, IterativeErasing, MultiView, TargetError
from camplug.explain.erase import compute_class_weights, erase

PAPER = {"threshold": 0.7, "stop": 0.01, "max_iter": 5, "combine": "sum"}
REPO = {"threshold": 0.7, "stop": 0.02, "max_iter": 5, "combine": "max"}


def red(*values, device="cpu"):
    """One image of one row whose red channel, the map of class 0, is this."""
    x = torch.zeros(1, 3, 1, len(values))
    x[0, 0, 0] = torch.tensor(values)
    return x.to(device)


# ---- golden numbers


def test_erased_golden(device):
    x = torch.arange(24.0).view(2, 3, 2, 2).to(device)
    mask = torch.tensor([[[True, False], [False, False]], [[False, True], [True, True]]])
    got = erase(x, mask.to(device))
    assert got[0].tolist() == [[[1.5, 1.0], [2.0, 3.0]], [[5.5, 5.0], [6.0, 7.0]], [[9.5, 9.0], [10.0, 11.0]]]
    assert got[1, 0].tolist() == [[12.0, 13.5], [13.5, 13.5]]
    assert same(x.cpu(), torch.arange(24.0).view(2, 3, 2, 2))


# red(10, 8, 5, 1) has the mean 6 and gives [1, .8, .5, .1]: two positions are erased
GOLDEN = {
    # [6, 6, 5, 1] / 6 is added: [2, 1.8, 4/3, 4/15] / 2; nothing new above .7
    "paper": (2, [1.0, 0.9, 2 / 3, 2 / 15]),
    # the maximum: [1, 1, 5/6, 1/6]; the third is erased, too; [6, 6, 6, 1] / 6 shows nothing new
    "repo": (3, [1.0, 1.0, 1.0, 1 / 6]),
}


@pytest.mark.parametrize("preset", GOLDEN)
def test_presets_golden(preset, device):
    passes, want = GOLDEN[preset]
    inner = Channels()
    got = IterativeErasing(inner, preset).maps(red(10.0, 8.0, 5.0, 1.0, device=device), 0)
    torch.testing.assert_close(got[0, 0].cpu(), torch.tensor(want))
    assert len(inner.seen) == passes
    assert [seen[0, 0, 0].tolist() for seen, _ in inner.seen] == [[10, 8, 5, 1], [6, 6, 5, 1], [6, 6, 6, 1]][:passes]


def test_global_passes_keep_their_scale(device):
    inner = Channels()
    got = IterativeErasing(inner, "paper", scaling="raw", normalize=None).maps(
        red(10.0, 8.0, 5.0, 1.0, device=device), 0
    )
    assert got[0, 0].tolist() == [16.0, 14.0, 10.0, 2.0]  # the second pass counts 6 at most, the first 10
    assert inner.normalize == "max"
    # [10, 8, 5, 1], then [6, 6, 5, 1] and [6, 6, 6, 1] at a maximum of 10 at most: nothing new above 7
    got = IterativeErasing(inner, normalize=None).maps(red(10.0, 8.0, 5.0, 1.0, device=device), 0)
    torch.testing.assert_close(got[0, 0].cpu(), torch.tensor([10.0, 8.0, 5.0, 1.0]))


def test_presets_are_the_papers_and_the_authors():
    for preset, numbers in (("paper", PAPER), ("repo", REPO)):
        erasing = IterativeErasing(Channels(), preset)
        assert {name: getattr(erasing, name) for name in numbers} == numbers
    assert [IterativeErasing(Channels(), p).scaling for p in ("paper", "repo", "camplug")] == ["own", "own", "relative"]
    assert IterativeErasing(Channels()).combine == "max"
    assert IterativeErasing(Channels()).stop == 0.01
    own = IterativeErasing(Channels(), "repo", threshold=0.5, max_iter=2)
    assert (own.threshold, own.stop, own.max_iter, own.combine) == (0.5, 0.02, 2, "max")


@pytest.mark.parametrize(("stop", "passes"), [(0.0, 4), (0.01, 4), (0.02, 3), (0.03, 2), (0.04, 1), (1.0, 1)])
def test_passes_are_counted(stop, passes, device):
    x = torch.zeros(1, 3, 10, 10)  # 3 pixels of 900, 2 of 500, 1 of 300; the mean is 40
    x[0, 0].view(-1)[:6] = torch.tensor([900.0, 900.0, 900.0, 500.0, 500.0, 300.0])
    x, inner = x.to(device), Channels()
    IterativeErasing(inner, "repo", stop=stop).maps(x, 0)
    assert len(inner.seen) == passes  # 3 %, then 2 %, then 1 % are new; a share that equals `stop` is not below it
    for n in range(1, passes + 1):
        inner.seen.clear()
        IterativeErasing(inner, "repo", stop=stop, max_iter=n).maps(x, 0)
        assert len(inner.seen) == n


def test_what_is_erased_is_the_images_own_mean_colour(device):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 6, 8) + torch.tensor([0.0, 5.0])[:, None, None, None]
    x = x.to(device)
    inner = Channels()
    IterativeErasing(inner, stop=0.0, max_iter=2).maps(x, [[0], [2]])
    (first, _), (second, _) = inner.seen
    assert same(first, x)
    for i, c in enumerate((0, 2)):
        hidden = x[i, c] / x[i, c].amax() > 0.7
        assert hidden.any()
        for channel in range(3):
            torch.testing.assert_close(
                second[i, channel][hidden], x[i, channel].mean().expand(int(hidden.sum())), rtol=0, atol=1e-6
            )
            assert same(second[i, channel][~hidden], x[i, channel][~hidden])


def test_what_any_class_shows_is_erased(device):
    x = torch.zeros(1, 3, 1, 5)
    x[0, 0, 0] = torch.tensor([8.0, 0.0, 0.0, 2.0, 0.0])
    x[0, 1, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    x, inner = x.to(device), Channels()
    IterativeErasing(inner, max_iter=2).maps(x, [[0, 1]])
    torch.testing.assert_close(inner.seen[1][0][0, 0, 0].cpu(), torch.tensor([2.0, 2.0, 0.0, 2.0, 0.0]))
    torch.testing.assert_close(inner.seen[1][0][0, 1, 0].cpu(), torch.tensor([0.2, 0.2, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_maps_of_zeros(combine, device):
    inner = Channels()
    got = IterativeErasing(inner, combine=combine, stop=0.0).maps(-torch.rand(2, 3, 4, 4).to(device), 1)
    assert (got == 0).all()
    assert got.shape == (2, 4, 4)
    assert len(inner.seen) == 1


# ---- weights


def test_class_weights_golden(device):
    logits = torch.tensor([[0.0, 2.0], [1.0, 1.0]]).to(device)
    classes = ((1, 0), (), (1,))[:2]
    sigmoid = [w.tolist() for w in compute_class_weights(logits, classes, "sigmoid")]
    assert sigmoid == [pytest.approx([1 / (1 + np.exp(-2)), 0.5]), []]
    softmax = compute_class_weights(logits, ((1, 0), (0,)), "softmax")
    assert [w.tolist() for w in softmax] == [pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]), [0.5]]
    assert [w.tolist() for w in compute_class_weights(logits, classes, None)] == [[1.0, 1.0], []]
    with pytest.raises(TargetError, match="need the model's logits"):
        compute_class_weights(None, classes, "sigmoid")


UNSURE = [([[[1.0, 0.0, 0.0]]], [0.0]), ([[[0.0, 1.0, 0.0]]], [-np.log(3)]), ([[[0.0, 0.0, 1.0]]], [9.0])]


def test_a_pass_weighs_by_the_probability_of_its_class(device):
    inner = Scripted(UNSURE)
    got = IterativeErasing(inner, weight="sigmoid", stop=0.0, normalize=None, max_iter=3, threshold=0.4)
    maps = got.maps(red(0.0, 0.0, 0.0, device=device), 0)
    torch.testing.assert_close(maps[0, 0].cpu(), torch.tensor([0.5, 0.25, 0.99988]))


def test_no_pass_follows_a_class_that_became_improbable(device):
    inner = Scripted(UNSURE)
    erasing = IterativeErasing(inner, stop_probability=0.3, stop=0.0, normalize=None)
    got = erasing.maps(red(0.0, 0.0, 0.0, device=device), 0)
    assert got[0, 0].tolist() == [1.0, 0.0, 0.0]
    assert len(inner.seen) == 2


def test_an_improbable_class_does_not_come_back(device):
    both = [[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]], [[[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]]
    third = [[[0.0, 0.0, 1.0]], [[0.0, 0.0, 1.0]]]
    inner = Scripted([(both[0], [1.0, 1.0]), (both[1], [1.0, -1.0]), (third, [1.0, 1.0])])
    erasing = IterativeErasing(inner, stop_probability=0.5, stop=0.0, max_iter=3, normalize=None)
    maps = erasing.maps(red(0.0, 0.0, 0.0, device=device), [[0, 1]])[0]
    assert maps.tolist() == [[[1.0, 1.0, 1.0]], [[1.0, 0.0, 0.0]]]


# ---- the slow reference


@pytest.mark.parametrize("inner", [GradCAM, FullyCAM])
@pytest.mark.parametrize("preset", [PAPER, REPO])
@pytest.mark.parametrize("scaling", ["own", "raw", "relative"])
@pytest.mark.parametrize("weight", [None, "sigmoid", "softmax"])
@pytest.mark.parametrize("least", [0.0, 0.5])
def test_equals_the_slow_reference(inner, preset, scaling, weight, least, device):
    model, x = model_and_batch(3, device=device)
    classes = [[3, 0], [1], [4, 2, 0]]
    erasing = IterativeErasing(
        inner(model),
        "paper" if preset is PAPER else "repo",
        scaling=scaling,
        weight=weight,
        stop_probability=least,
        normalize=None,
    )
    look = looking(inner(model, normalize="max" if scaling == "own" else None))
    chance = slow.certain if weight is None else chances(model, weight)
    numbers = []
    for image, row, got in zip(x.cpu().numpy(), classes, erasing.maps(x, classes), strict=True):
        want, passes = slow.erasing(
            look,
            image,
            row,
            **preset,
            chance=chance,
            likely=chances(model, weight or "sigmoid"),
            least=least,
            relative=scaling == "relative",
        )
        np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-6, atol=1e-10)
        numbers.append(passes)
    if least == 0:
        assert max(numbers) > 1


def test_images_of_a_batch_stop_by_themselves(device):
    model, x = model_and_batch(5, device=device)
    recorder = Recording(FullyCAM(model))
    erasing = IterativeErasing(recorder, "repo", stop=0.05)
    classes = [[3], [1, 2], [], [0], [4, 3]]
    together = erasing.maps(x, classes)
    sizes = [len(seen) for seen, _, _ in recorder.seen]
    passes = []
    for image, row, got in zip(x, classes, together, strict=True):
        recorder.seen.clear()
        alone = erasing.maps(image[None], [row])[0]
        torch.testing.assert_close(got, alone.to(got.dtype), rtol=0, atol=1e-12)
        passes.append(len(recorder.seen))
    assert passes[2] == 1  # nothing to look for
    assert len(set(passes)) > 2
    assert sizes == [sum(p > n for p in passes) for n in range(max(passes))]


@pytest.mark.parametrize("normalize", ["max", "minmax"])
def test_size_and_normalisation_come_last(normalize, device):
    model, x = model_and_batch(device=device)
    raw = IterativeErasing(GradCAM(model), normalize=None).maps(x, 1).cpu().numpy()
    got = IterativeErasing(GradCAM(model), normalize=normalize).maps(x, 1, (7, 9)).cpu().numpy()
    for one, joined in zip(got, raw, strict=True):
        want = slow.bilinear(joined, (7, 9))
        if normalize == "minmax":
            want -= want.min()
        np.testing.assert_allclose(one, slow.scaled(want), atol=1e-12)


def test_the_answer_is_about_the_image_as_it_is(device):
    model, x = model_and_batch(device=device)
    result = IterativeErasing(FullyCAM(model)).run(x, None)
    with torch.no_grad():
        logits = model(x)
    torch.testing.assert_close(result.logits, logits)
    assert result.targets.classes == tuple((c,) for c in logits.argmax(1).tolist())
    assert isinstance(IterativeErasing(FullyCAM(model)).maps(x), torch.Tensor)
    assert isinstance(IterativeErasing(FullyCAM(model)).maps(x, [[1], [2]]), list)


def test_an_erased_image_is_mirrored_as_a_whole(device):
    model, x = model_and_batch(device=device)
    recorder = Recording(FullyCAM(model))
    IterativeErasing(MultiView(recorder, (1.0,)), "repo", stop=0.0, max_iter=3).maps(x, [0, 1])
    assert len(recorder.seen) == 3
    for n, (seen, _, _) in enumerate(recorder.seen):
        half = len(seen) // 2
        assert same(seen[half:], seen[:half].flip(-1))
        assert same(seen[:half], x) == (n == 0)


# ---- refusals


def test_a_callable_is_refused():
    with pytest.raises(TargetError, match="explains classes, not a callable"):
        IterativeErasing(Channels()).maps(torch.rand(1, 3, 4, 4), lambda output: output[:, 0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "mine"}, r"^preset='mine'; allowed are 'paper', 'repo', 'camplug'\.$"),
        ({"combine": "mean"}, r"^combine='mean'; allowed are 'sum', 'max'\.$"),
        ({"scaling": "none"}, r"^scaling='none'; allowed are 'own', 'relative', 'raw'\.$"),
        ({"weight": "relu"}, r"^weight='relu'; allowed are 'sigmoid', 'softmax', None\.$"),
        ({"normalize": "sum"}, "^normalize='sum'; allowed are"),
        *(({"threshold": v}, "threshold lies between 0 and 1") for v in (0, 1, 1.5, -0.1, "high", float("nan"), True)),
        *(({"stop": v}, "stop and stop_probability from 0 to 1") for v in (-0.1, 2, "2%")),
        *(({"stop_probability": v}, "stop_probability=.* from 0 to 1") for v in (-0.1, 2, None)),
        *(({"max_iter": v}, "max_iter is a whole number of at least 1") for v in (0, -1, 2.5, "3", True)),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(InputError, match=says):
        IterativeErasing(Channels(), **options)


def test_only_an_explainer_is_wrapped():
    with pytest.raises(InputError, match=r"^IterativeErasing wraps an explainer, for instance .*; got Means\.$"):
        IterativeErasing(Means())
