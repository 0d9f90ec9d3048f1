"""Competing classes: golden numbers, the slow reference, when the judge is asked."""

from __future__ import annotations

import numpy as np
import pytest
import slow
import torch
from wrapped import Channels, Means, Recording, Scripted, looking, model_and_batch, same

from camplug import CAM, Compete, FullyCAM, GradCAM, InputError, ModelError, TargetError
from camplug.explain.compete import compute_shares


def test_shares_golden(device):
    judged = torch.tensor([[[0.5, 0.0, 1.0, 0.2]], [[0.25, 0.0, 0.0, 0.2]], [[0.0, 0.0, 0.001, 0.1]]]).double()
    judged = judged.to(device)
    want = [[1, 1, 1, 1], [0.251 / 0.501, 1, 0.001 / 1.001, 1], [0.001 / 0.501, 1, 0.002 / 1.001, 0.101 / 0.201]]
    torch.testing.assert_close(compute_shares(judged)[:, 0].cpu(), torch.tensor(want).double())
    torch.testing.assert_close(compute_shares(judged, 2.0)[:, 0].cpu(), torch.tensor(want).double() ** 2)
    assert (compute_shares(judged[:1]) == 1).all()
    assert compute_shares(judged[:0]).shape == (0, 1, 4)


def test_competing_golden(device):
    model = Means()
    maps = Scripted([([[[1.0, 0.5, 0.5]], [[1.0, 1.0, 0.5]]], [0.0, 0.0])], model)
    judge = Scripted([([[[4.0, 0.0, 0.0]], [[0.0, 0.5, 0.0]]], [0.0, 0.0])], model)  # 1 and 1 at their maximum
    got = Compete(maps, judge, power=1.0, normalize=None).maps(torch.zeros(1, 3, 1, 3, device=device), [[0, 1]])[0]
    share = 0.001 / 1.001
    torch.testing.assert_close(got[:, 0].cpu(), torch.tensor([[1.0, 0.5 * share, 0.5], [share, 1.0, 0.5]]))


@pytest.mark.parametrize("judge", [None, CAM])
@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("normalize", ["max", None])
def test_equals_the_slow_reference(judge, power, normalize, device):
    model, x = model_and_batch(3, device=device)
    classes = [[3, 0], [1], [4, 2, 0]]
    compete = Compete(FullyCAM(model), judge and judge(model), power, normalize=normalize)
    for image, row, got in zip(x.cpu().numpy(), classes, compete.maps(x, classes), strict=True):
        judging = looking((judge or GradCAM)(model, normalize=None))
        want = slow.competing(looking(FullyCAM(model)), judging, image, row, power)
        want = np.array([slow.scaled(m) for m in want]) if normalize else want
        np.testing.assert_allclose(got.cpu().numpy(), want, atol=1e-10)


def test_size(device):
    model, x = model_and_batch(1, device=device)
    got = Compete(FullyCAM(model), normalize=None).maps(x, [[3, 0]], (7, 9))[0].cpu().numpy()
    look, judge = looking(FullyCAM(model)), looking(GradCAM(model))
    want = slow.competing(
        lambda image, row: look(image, row, (7, 9)),
        lambda image, row: judge(image, row, (7, 9)),
        x[0].cpu().numpy(),
        [3, 0],
        2,
    )
    np.testing.assert_allclose(got, want, atol=1e-10)


def test_a_single_class_has_no_rivals(device):
    model, x = model_and_batch(3, device=device)
    explainer, judge = FullyCAM(model), Recording(GradCAM(model))
    compete = Compete(explainer, judge)
    for classes in (2, [0, 1, 2], None, [[0], [], [3]], [[], [], []]):
        got, want = compete.maps(x, classes), explainer.maps(x, classes)
        assert all(same(a, b) for a, b in zip(got, want, strict=True))
        assert type(got) is type(want)
    assert judge.seen == []


def test_the_judge_sees_only_images_with_rivals(device):
    model, x = model_and_batch(4, device=device)
    judge = Recording(GradCAM(model))
    got = Compete(FullyCAM(model), judge).maps(x, [[1], [3, 0], [], [2, 4, 0]], (5, 6))
    assert [tuple(m.shape) for m in got] == [(1, 5, 6), (2, 5, 6), (0, 5, 6), (3, 5, 6)]
    ((seen, classes, size),) = judge.seen
    assert same(seen, x[[1, 3]])
    assert classes == [[3, 0], [2, 4, 0]]
    assert size == (5, 6)


def test_classes_that_share_everything_keep_their_maps(device):
    model, x = model_and_batch(1, device=device)
    got = Compete(FullyCAM(model)).maps(x, [[3, 3]])[0]
    assert same(got, FullyCAM(model).maps(x, 3).expand(2, -1, -1))


def test_the_answer_is_the_explainers(device):
    model, x = model_and_batch(device=device)
    result, want = Compete(FullyCAM(model)).run(x, [[3, 0], [1]]), FullyCAM(model).run(x, [[3, 0], [1]])
    assert same(result.logits, want.logits)
    assert result.targets == want.targets


def test_refusals(device):
    model, _ = model_and_batch(device=device)
    with pytest.raises(ModelError, match="the judge explains another model than the explainer; give both the same"):
        Compete(FullyCAM(model), GradCAM(model_and_batch(device=device)[0]))
    with pytest.raises(
        InputError, match=r"^judge='cam' is no explainer; give for instance judge=camplug\.CAM\(model\)\.$"
    ):
        Compete(FullyCAM(model), "cam")
    for power in (0, -1, float("nan"), "2", None):
        with pytest.raises(InputError, match=r"^power=.*; give more than 0\.$"):
            Compete(FullyCAM(model), power=power)
    with pytest.raises(InputError, match="normalize='sum'; allowed are"):
        Compete(FullyCAM(model), normalize="sum")
    with pytest.raises(InputError, match=r"^Compete wraps an explainer, .*; got FeatureModule\.$"):
        Compete(model)
    with pytest.raises(TargetError, match="explains classes, not a callable"):
        Compete(Channels()).maps(torch.rand(1, 3, 4, 4), lambda output: output[:, 0])
