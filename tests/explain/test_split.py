"""Split & unite: centres, patches and united maps against golden numbers and the slow reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import slow
import torch
from wrapped import Channels, Means, Recording, chances, looking, model_and_batch

from camplug import CAM, FullyCAM, GradCAM, InputError, IterativeErasing, SplitUnite, TargetError
from camplug.explain.split import Patch, find_centres_of_mass, make_patches

# ---- centres


def test_centres_golden(device):
    maps = torch.zeros(5, 5, 9)
    maps[0, 1, 2] = maps[0, 3, 2] = 3
    maps[1, 0, 0], maps[1, 0, 1] = 1, 3  # 0.75 is cut to 0
    maps[2, 4, 8] = 1e-30
    maps[3, 0, 8] = -5.0  # what is negative has no mass: a map of zeros
    maps[4] = 1
    maps = maps.to(device)
    assert find_centres_of_mass(maps) == [(2, 2), (0, 0), (4, 8), (2, 4), (2, 4)]
    maps[0, 4, 8] = -1.0
    assert find_centres_of_mass(maps[:1]) == [(2, 2)]
    assert find_centres_of_mass(torch.zeros(1, 6, 10, device=device)) == [(3, 5)]
    assert find_centres_of_mass(maps[:0]) == []


def test_centres_equal_the_slow_reference(device):
    maps = (torch.rand(20, 7, 12) ** 4).to(device)
    assert find_centres_of_mass(maps) == [slow.centre(m) for m in maps.double().cpu().numpy()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_centres_of_large_maps_do_not_overflow(dtype, device):
    assert find_centres_of_mass(torch.full((1, 301, 401), 1000, dtype=dtype, device=device)) == [(150, 200)]


# ---- patches

BIG = (100, 200)
PATCHES = {
    "one centre": ([(50, 100)], 0, 1, [(0, 0, 50, 100), (0, 100, 50, 200), (50, 0, 100, 100), (50, 100, 100, 200)]),
    "one centre, margin": (
        [(50, 100)],
        10,
        1,
        [(0, 0, 60, 110), (0, 90, 60, 200), (40, 0, 100, 110), (40, 90, 100, 200)],
    ),
    # 5 - 10 and 8 - 10 are clamped to 0, not counted from the other end
    "margin past the border": ([(5, 8)], 10, 1, [(0, 0, 15, 18), (0, 0, 15, 200), (0, 0, 100, 18), (0, 0, 100, 200)]),
    "margin past the other border": (
        [(95, 193)],
        10,
        1,
        [(0, 0, 100, 200), (0, 183, 100, 200), (85, 0, 100, 200), (85, 183, 100, 200)],
    ),
    "first corner": ([(0, 0)], 0, 1, [(0, 0, 1, 1), (0, 0, 1, 200), (0, 0, 100, 1), (0, 0, 100, 200)]),
    "first corner, smallest": ([(0, 0)], 0, 32, [(0, 0, 32, 32), (0, 0, 32, 200), (0, 0, 100, 32), (0, 0, 100, 200)]),
    "last corner, smallest": (
        [(99, 199)],
        0,
        32,
        [(0, 0, 99, 199), (0, 168, 99, 200), (68, 0, 100, 199), (68, 168, 100, 200)],
    ),
    "two centres": (
        [(30, 150), (60, 40)],
        20,
        1,
        [(0, 0, 80, 170), (0, 20, 80, 200), (10, 0, 100, 170), (10, 20, 100, 200)],
    ),
    "two centres, paper": (
        [(30, 150), (60, 40)],
        0,
        32,
        [(0, 0, 60, 150), (0, 40, 60, 200), (30, 0, 100, 150), (30, 40, 100, 200)],
    ),
    "nothing is smaller than the image": ([(3, 4)], 0, 300, [(0, 0, 100, 200)] * 4),
}


@pytest.mark.parametrize("name", PATCHES)
def test_patches_golden(name):
    centres, margin, smallest, want = PATCHES[name]
    assert make_patches(centres, BIG, margin, smallest) == [Patch(*p) for p in want]


@pytest.mark.parametrize("margin", [0, 1, 3, 50])
@pytest.mark.parametrize("smallest", [1, 3, 20])
def test_patches_of_every_centre(margin, smallest):
    size = (5, 7)
    places = list(itertools.product(range(5), range(7)))
    for centres in [[a] for a in places] + [[a, b] for a in places[::4] for b in places[::3]]:
        patches = make_patches(centres, size, margin, smallest)
        covered = np.zeros(size, int)
        for p in patches:
            covered[p.top : p.bottom, p.left : p.right] += 1
            assert 0 <= p.top < p.bottom <= 5
            assert 0 <= p.left < p.right <= 7
            assert p.bottom - p.top >= min(smallest, 5)
            assert p.right - p.left >= min(smallest, 7)
        assert covered.min() >= 1
        if margin or len(centres) == 2:  # the box, but for its last row and column without a margin
            (top, bottom), (left, right) = ((min(c), max(c)) for c in zip(*centres, strict=True))
            extra = 1 if margin else 0
            assert (covered[top : bottom + extra, left : right + extra] == 4).all()
        want = slow.quarters(centres, size, margin, smallest)
        assert [(p.top, p.bottom, p.left, p.right) for p in patches] == want


# ---- the united map


def test_uniting_golden(device):
    x = torch.zeros(1, 3, 1, 4)
    x[0, 0, 0] = torch.tensor([2.0, 4.0, 1.0, 3.0])  # the centre: (4 + 2 + 9) / 10 = 1.5, cut to 1
    x = x.to(device)
    # the parts [2] and [4, 1, 3], each of maximum 1; above and below are the same row
    for unite, want in (("max", [1.0, 1.0, 0.25, 0.75]), ("sum", [2.0, 2.0, 0.5, 1.5])):
        split = SplitUnite(Channels(), "paper", smallest=1, combine=unite, normalize=None)
        assert split.maps(x, 0)[0, 0].tolist() == want
    kept = SplitUnite(Channels(), "paper", smallest=1, scaling="raw", normalize=None)
    assert kept.maps(x, 0)[0, 0].tolist() == [2.0, 4.0, 1.0, 3.0]
    assert SplitUnite(Channels(), "paper", smallest=1, scaling="raw").maps(x, 0)[0, 0].tolist() == [
        0.5,
        1.0,
        0.25,
        0.75,
    ]
    whole = SplitUnite(Channels(), "paper", smallest=1, combine="sum", whole=True, normalize=None)
    assert whole.maps(x, 0)[0, 0].tolist() == [2.5, 3.0, 0.75, 2.25]
    # the whole image [2, 4, 1, 3] and the parts, none above 4: (2 + 2 + 2) / 3, ...; above and below are the same row
    own = SplitUnite(Channels(), smallest=1, zoom=1, normalize=None)
    assert own.maps(x, 0)[0, 0].tolist() == [2.0, 4.0, 1.0, 3.0]
    margin = SplitUnite(Channels(), "paper", smallest=1, margins=(1, 0), normalize=None)  # [2, 4] and [2, 4, 1, 3]
    assert margin.maps(x, 0)[0, 0].tolist() == [0.5, 1.0, 0.25, 0.75]


def test_a_part_without_the_object_is_as_loud_as_the_others_unless_it_is_weighed(device):
    x = torch.zeros(1, 3, 8, 8, device=device)
    x[0, 0, 0], x[0, 0, :, 0], x[0, 0, 7, 7] = 8.0, 8.0, 0.1  # the centre is (1, 1)
    assert SplitUnite(Channels(), "paper", smallest=1).maps(x, 0)[0, 7, 7] == 1
    faint = SplitUnite(Channels(), "paper", smallest=1, scaling="raw").maps(x, 0)[0, 7, 7]
    assert float(faint) == pytest.approx(0.0125)


def test_presets_are_the_papers_and_the_authors():
    paper, repo = SplitUnite(Channels(), "paper"), SplitUnite(Channels(), "repo")
    assert (paper.margins, paper.many) == ((0, 0), "per-class")
    assert (repo.margins, repo.many) == ((10, 20), "none")
    assert SplitUnite(Channels(), "repo", margins=[3, 4], many="per-class").margins == (3, 4)
    own = SplitUnite(Channels())
    assert (own.margins, own.combine, own.scaling, own.weight) == ((0, 0), "mean", "relative", None)
    assert (own.whole, own.zoom) == (True, 2.0)
    assert SplitUnite(Channels(), weight=None, whole=False).weight is None


CLASSES = {"one": [[3], [0]], "two": [[3, 0], [1, 4]], "three": [[4, 2, 0], [0, 1, 2, 3]], "mixed": [[2], [4, 3, 1]]}
OPTIONS = {
    "paper": {"margins": (0, 0), "many": "per-class"},
    "repo": {"margins": (10, 20), "many": "none"},
    "camplug": {"combine": "mean", "scaling": "relative", "whole": True, "zoom": 2.0},
    "sum, sigmoid, whole, zoom": {"combine": "sum", "weight": "sigmoid", "whole": True, "zoom": 2.0},
    "mean, margins": {"combine": "mean", "margins": (2, 1)},
    "small margins": {"margins": (1, 2), "many": "per-class"},
    "small margins, none": {"margins": (2, 1), "many": "none"},
    "sum": {"combine": "sum"},
    "sum, whole": {"combine": "sum", "whole": True},
    "whole": {"whole": True},
    "zoom": {"zoom": 1.5},
    "small zoom": {"zoom": 0.6, "combine": "sum"},
    "sigmoid": {"weight": "sigmoid"},
    "softmax, zoom": {"weight": "softmax", "zoom": 1.3, "margins": (1, 1)},
    "raw": {"scaling": "raw"},
    "raw, sigmoid, whole": {"scaling": "raw", "weight": "sigmoid", "whole": True},
    "relative": {"scaling": "relative"},
    "relative, whole, zoom": {"scaling": "relative", "whole": True, "zoom": 1.5},
    "relative, sum, sigmoid": {"scaling": "relative", "combine": "sum", "weight": "sigmoid"},
    "smallest": {"smallest": 9},
    "locate": {"locate": CAM},
}


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_the_slow_reference(name, classes, device):
    model, x = model_and_batch(2, (12, 16), device=device)
    wanted = CLASSES[classes]
    options = {"smallest": 4, **OPTIONS[name]}
    if "locate" in options:
        options["locate"] = options["locate"](model)
    preset = name if name in ("repo", "camplug") else "paper"
    split = SplitUnite(GradCAM(model), preset, normalize=None, **({"smallest": 4} if name == preset else options))
    reference = {"margins": (0, 0), "many": "per-class", **options}
    scaling, weight = reference.pop("scaling", "own"), reference.pop("weight", None)
    look = looking(GradCAM(model, normalize="max" if scaling == "own" else None))
    chance = chances(model, weight) if weight else slow.certain
    locate = looking(reference.pop("locate")) if "locate" in reference else looking(GradCAM(model))
    for image, row, got in zip(x.cpu().numpy(), wanted, split.maps(x, wanted), strict=True):
        want = slow.splitting(
            look, image, row, chance=chance, locate=locate, relative=scaling == "relative", **reference
        )
        assert want.max() > 0
        np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("normalize", ["max", "minmax"])
def test_size_and_normalisation_come_last(normalize, device):
    model, x = model_and_batch(device=device)
    raw = SplitUnite(FullyCAM(model), smallest=4, normalize=None).maps(x, 1).cpu().numpy()
    got = SplitUnite(FullyCAM(model), smallest=4, normalize=normalize).maps(x, 1, (7, 9)).cpu().numpy()
    for one, united in zip(got, raw, strict=True):
        want = slow.bilinear(united, (7, 9))
        if normalize == "minmax":
            want -= want.min()
        np.testing.assert_allclose(one, slow.scaled(want), atol=1e-12)


def test_maps_of_zeros_are_split_in_the_middle(device):
    recorder = Recording(Channels())
    got = SplitUnite(recorder, "paper", smallest=1).maps(-torch.rand(1, 3, 6, 8).to(device), 1)
    assert (got == 0).all()
    assert [tuple(seen.shape) for seen, _, _ in recorder.seen] == [(1, 3, 6, 8), (4, 3, 3, 4)]


# ---- what is run


def test_patches_of_one_size_go_through_the_model_together():
    model = Means()
    SplitUnite(Channels(model), "paper", smallest=1).maps(torch.zeros(3, 3, 8, 12), 0)
    assert model.passes == 2  # twelve quarters of 4x6


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("scaling", ["own", "relative", "raw"])
def test_the_whole_image_is_explained_once(scaling, whole):
    model = Means()
    SplitUnite(Channels(model), scaling=scaling, whole=whole, smallest=1).maps(torch.zeros(3, 3, 8, 12), 0)
    assert model.passes == 2  # the images, and their quarters
    located = Means()
    locate = Channels(located)
    SplitUnite(Channels(model), scaling=scaling, whole=whole, smallest=1, locate=locate).maps(
        torch.zeros(1, 3, 8, 12), 0
    )
    assert located.passes == 1
    assert model.passes == 2 + (2 if whole or scaling == "relative" else 1)
    recorder = Recording(Channels())
    SplitUnite(recorder, "paper", smallest=1).maps(torch.ones(2, 3, 7, 11), [[0], [1]])  # the centre of both is (3, 5)
    assert [tuple(seen.shape) for seen, _, _ in recorder.seen] == [
        (2, 3, 7, 11),
        (2, 3, 3, 5),
        (2, 3, 3, 6),
        (2, 3, 4, 5),
        (2, 3, 4, 6),
    ]
    assert all(classes == [[0], [1]] for _, classes, _ in recorder.seen)


def test_an_image_of_many_classes_is_seen_once_if_it_is_not_split(device):
    x = torch.rand(2, 3, 8, 12)
    recorder = Recording(Channels())
    got = SplitUnite(recorder, many="none", whole=True).maps(x, [[0, 1, 2], [2, 1, 0]])
    assert [tuple(seen.shape) for seen, _, _ in recorder.seen] == [(2, 3, 8, 12)]
    torch.testing.assert_close(got[0], got[1].new_tensor(np.stack([slow.scaled(c) for c in x[0].cpu().numpy()])))


def test_only_parts_are_zoomed():
    recorder = Recording(Channels())
    SplitUnite(recorder, smallest=1, zoom=2.0, whole=True).maps(torch.ones(1, 3, 7, 9), 0)
    assert [(tuple(seen.shape[2:]), size) for seen, _, size in recorder.seen] == [
        ((7, 9), (7, 9)),
        ((6, 8), (3, 4)),
        ((6, 10), (3, 5)),
        ((8, 8), (4, 4)),
        ((8, 10), (4, 5)),
    ]
    tiny = Recording(Channels())
    SplitUnite(tiny, smallest=1, zoom=0.01).maps(torch.ones(1, 3, 7, 9), 0)
    assert {tuple(seen.shape[2:]) for seen, _, _ in tiny.seen} == {(7, 9), (1, 1)}


def test_lists_with_an_empty_one_are_the_maps_one_by_one(device):
    model, x = model_and_batch(3, device=device)
    split = SplitUnite(IterativeErasing(FullyCAM(model)), smallest=4, locate=GradCAM(model))
    wanted = [[0, 4, 2], [], [1]]
    together = split.maps(x, wanted, (7, 9))
    assert [tuple(m.shape) for m in together] == [(3, 7, 9), (0, 7, 9), (1, 7, 9)]
    for i in (0, 2):
        torch.testing.assert_close(together[i], split.maps(x[i : i + 1], [wanted[i]], (7, 9))[0], rtol=0, atol=1e-12)
    assert [len(m) for m in split.maps(x, [[], [], []])] == [0, 0, 0]


def test_the_answer_is_about_the_whole_image(device):
    model, x = model_and_batch(device=device)
    with torch.no_grad():
        logits = model(x)
    result = SplitUnite(FullyCAM(model), smallest=4).run(x, None)
    torch.testing.assert_close(result.logits, logits)
    assert result.targets.classes == tuple((c,) for c in logits.argmax(1).tolist())
    assert isinstance(SplitUnite(FullyCAM(model), smallest=4).maps(x), torch.Tensor)


# ---- refusals


def test_a_callable_is_refused():
    with pytest.raises(TargetError, match="explains classes, not a callable"):
        SplitUnite(Channels()).maps(torch.rand(1, 3, 4, 4), lambda output: output[:, 0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "mine"}, r"^preset='mine'; allowed are 'paper', 'repo', 'camplug'\.$"),
        ({"many": "some"}, r"^many='some'; allowed are 'per-class', 'none'\.$"),
        ({"combine": "min"}, r"^combine='min'; allowed are 'max', 'mean', 'sum'\.$"),
        ({"scaling": "none"}, r"^scaling='none'; allowed are 'own', 'relative', 'raw'\.$"),
        ({"weight": "relu"}, r"^weight='relu'; allowed are 'sigmoid', 'softmax', None\.$"),
        ({"normalize": "sum"}, "^normalize='sum'; allowed are"),
        ({"locate": Means()}, r"^locate=Means\(\) is no explainer; give for instance locate=camplug\.CAM\(model\)\.$"),
        *(
            ({"margins": v}, r"^margins=.*: give two margins of at least 0 pixels")
            for v in (5, (1,), (1, 2, 3), (-1, 2), (0.5, 1), "ab", (True, 1))
        ),
        *(({"smallest": v}, r"smallest=.* smallest side of at least 1 pixel") for v in (0, -3, 2.5, "8", None)),
        *(({"zoom": v}, r"zoom=.* a zoom above 0\.$") for v in (0, -1.5, float("inf"), float("nan"), "2")),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(InputError, match=says):
        SplitUnite(Channels(), **options)
