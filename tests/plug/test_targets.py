"""Reading the caller's classes and the model's output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camplug import ModelError, TargetError
from camplug.plug import logits_of, resolve, spelled_out

Y = torch.arange(6.0).view(2, 3)


class WithLogits:
    logits = Y


@pytest.mark.parametrize(
    "output",
    [Y, (Y, 2), [Y], {"logits": Y, "aux": -Y}, {"aux": -Y, "out": Y}, {"only": Y}, WithLogits(), Y[:, :, None, None]],
)
def test_logits_are_found(output):
    assert torch.equal(logits_of(output), Y)


def test_a_vector_is_one_score_per_image():
    assert logits_of(Y[:, 0]).shape == (2, 1)


@pytest.mark.parametrize("output", [None, "text", {"names": ["a"]}, (1, 2), Y[:, :, None, None].expand(-1, -1, 2, 2)])
def test_no_logits_is_told(output):
    with pytest.raises(ModelError, match="callable"):
        logits_of(output)


def test_rounds_and_scores(device):
    y = Y.to(device)
    targets = resolve([[2, 0], [1]], y, 2)
    assert targets.rounds == 2
    assert targets.per_image
    assert targets.scores(y, 0).tolist() == [2.0, 4.0]
    assert targets.of_round(1) == ([0], [0])
    assert targets.scores(y, 1).tolist() == [0.0]


def test_the_predicted_class_and_classes_on_the_device(device):
    y = Y.to(device)
    assert resolve(None, y, 2).classes == ((2,), (2,))
    for classes, rows in ((torch.tensor([2, 0]), ((2,), (0,))), (torch.tensor([[2, 1], [0, 1]]), ((2, 1), (0, 1)))):
        assert resolve(classes.to(device), y, 2).classes == rows
    assert resolve([torch.tensor([1, 2]).to(device), []], y, 2).classes == ((1, 2), ())
    assert resolve(torch.tensor(1).to(device), y, 2).classes == ((1,), (1,))


def test_a_score_that_is_nan_is_told_on_any_device(device):
    y = torch.where(Y == 4, float("nan"), Y).to(device)
    resolve([0, 0], y, 2).check(y)
    for wanted in ([0, 1], [[0, 2], [1]]):
        with pytest.raises(TargetError, match="NaN or infinite for image 1 of the batch"):
            resolve(wanted, y, 2).check(y)
    with pytest.raises(TargetError, match="NaN or infinite for image 1 of the batch"):
        resolve(lambda out: out[:, 1], y, 2).scores(y, 0)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (3, "0 to 2"),
        ([0, 3], "class 3 is outside"),
        ([1], "1 entries in classes for 2 images"),
        ([[0], 1], "mixes"),
        ("cat", "3 entries|no class index"),
        ([0.5, 1], "no class index"),
    ],
)
def test_bad_classes(classes, says):
    with pytest.raises(TargetError, match=says):
        resolve(classes, Y, 2)


@pytest.mark.parametrize(
    ("classes", "rows", "per_image"),
    [
        (1, [[1], [1]], False),
        (torch.tensor(1), [[1], [1]], False),
        (np.int64(1), [[1], [1]], False),
        ([1, 9], [[1], [9]], False),  # whether they exist is not asked
        (range(2), [[0], [1]], False),
        (torch.tensor([2, 0]), [[2], [0]], False),
        (np.array([2, 0]), [[2], [0]], False),
        ([[2, 0], []], [[2, 0], []], True),
        (((1,), (2, 0)), [[1], [2, 0]], True),
        ([torch.tensor([1, 2]), np.array([0])], [[1, 2], [0]], True),
        (torch.tensor([[2, 1], [0, 1]]), [[2, 1], [0, 1]], True),
    ],
)
def test_classes_spelled_out(classes, rows, per_image):
    assert spelled_out(classes, 2) == (rows, per_image)
    if rows[1] != [9]:
        assert resolve(classes, Y, 2).classes == tuple(map(tuple, rows))
        assert resolve(classes, Y, 2).per_image is per_image


def test_rows_spelled_out_are_not_shared():
    for classes in (1, [[1], [1]], [1, 1]):
        first, second = rows = spelled_out(classes, 2)[0]
        first.append(2)
        assert second == [1]
        assert spelled_out(classes, 2)[0] != rows


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ([1], "^1 entries in classes for 2 images; give one class for all, one per image, or one list per image"),
        (torch.tensor([1, 2, 0]), "^3 entries in classes for 2 images"),
        ([[0], 1], "^classes mixes single classes and lists; give one class per image, or one list per image"),
    ],
)
def test_what_cannot_be_spelled_out(classes, says):
    with pytest.raises(TargetError, match=says):
        spelled_out(classes, 2)
