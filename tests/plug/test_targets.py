"""Reading the caller's classes and the model's output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camplug import Against, ModelError, TargetError
from camplug.plug import are_probabilities, find_link, get_logits, list_classes, resolve_classes

Y = torch.arange(6.0).view(2, 3)


class WithLogits:
    logits = Y


@pytest.mark.parametrize(
    "output",
    [Y, (Y, 2), [Y], {"logits": Y, "aux": -Y}, {"aux": -Y, "out": Y}, {"only": Y}, WithLogits(), Y[:, :, None, None]],
)
def test_logits_are_found(output):
    assert torch.equal(get_logits(output), Y)


def test_a_vector_is_one_score_per_image():
    assert get_logits(Y[:, 0]).shape == (2, 1)


@pytest.mark.parametrize("output", [None, "text", {"names": ["a"]}, (1, 2), Y[:, :, None, None].expand(-1, -1, 2, 2)])
def test_no_logits_is_told(output):
    with pytest.raises(ModelError, match="callable"):
        get_logits(output)


def test_rounds_and_scores(device):
    y = Y.to(device)
    targets = resolve_classes([[2, 0], [1]], y, 2)
    assert targets.rounds == 2
    assert targets.per_image
    assert targets.compute_scores(y, 0).tolist() == [2.0, 4.0]
    assert targets.get_round(1) == ([0], [0])
    assert targets.compute_scores(y, 1).tolist() == [0.0]


def test_the_predicted_class_and_classes_on_the_device(device):
    y = Y.to(device)
    assert resolve_classes(None, y, 2).classes == ((2,), (2,))
    for classes, rows in ((torch.tensor([2, 0]), ((2,), (0,))), (torch.tensor([[2, 1], [0, 1]]), ((2, 1), (0, 1)))):
        assert resolve_classes(classes.to(device), y, 2).classes == rows
    assert resolve_classes([torch.tensor([1, 2]).to(device), []], y, 2).classes == ((1, 2), ())
    assert resolve_classes(torch.tensor(1).to(device), y, 2).classes == ((1,), (1,))


def test_a_score_that_is_nan_is_told_on_any_device(device):
    y = torch.where(Y == 4, float("nan"), Y).to(device)
    resolve_classes([0, 0], y, 2).check(y)
    for wanted in ([0, 1], [[0, 2], [1]]):
        with pytest.raises(TargetError, match="NaN or infinite for image 1 of the batch"):
            resolve_classes(wanted, y, 2).check(y)
    with pytest.raises(TargetError, match="NaN or infinite for image 1 of the batch"):
        resolve_classes(lambda out: out[:, 1], y, 2).compute_scores(y, 0)


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
        resolve_classes(classes, Y, 2)


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
    assert list_classes(classes, 2) == (rows, per_image)
    if rows[1] != [9]:
        assert resolve_classes(classes, Y, 2).classes == tuple(map(tuple, rows))
        assert resolve_classes(classes, Y, 2).per_image is per_image


def test_rows_spelled_out_are_not_shared():
    for classes in (1, [[1], [1]], [1, 1]):
        first, second = rows = list_classes(classes, 2)[0]
        first.append(2)
        assert second == [1]
        assert list_classes(classes, 2)[0] != rows


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
        list_classes(classes, 2)


# ---- which tensor holds the scores, and what they are

Z = torch.tensor([[1.0, 5.0, -2.0], [0.3, -1.0, 0.2]])
FEATURES = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "link", [lambda z: z.softmax(1), lambda z: z.sigmoid(), lambda z: z.log_softmax(1), lambda z: (z / 3).softmax(1)],
    ids=["softmax", "sigmoid", "log softmax", "softmax at another temperature"],
)  # fmt: skip
def test_of_probabilities_and_logits_the_logits_are_taken(link, dtype, device):
    z = Z.to(device, dtype)
    p = link(z)
    outputs = [(p, z), [z, p], {"probabilities": p, "scores": z}, (torch.zeros(2, 7, 3, 3).to(device), p, z)]
    for output in [
        *outputs,
        (p, z, FEATURES.to(device, dtype)),
    ]:  # the width of the probabilities is that of the classes
        assert torch.equal(get_logits(output), z)
    assert torch.equal(get_logits((p, FEATURES.to(device, dtype)) if link(Z).sum(1).allclose(torch.ones(2)) else p), p)


def test_saturated_probabilities_are_told_from_logits(device):
    z = torch.tensor([[40.0, -60.0, 3.0]]).to(device)
    assert torch.equal(get_logits((z.softmax(1), z)), z)
    small = torch.tensor([[0.25, 0.25, 0.5]]).to(device)  # logits that sum to 1 themselves
    assert torch.equal(get_logits((small.softmax(1), small)), small)


@pytest.mark.parametrize(
    "output", [(Y, -Y), {"main": Y, "aux": -Y}, (Y, Y[:, :1]), (Y, torch.ones(3, 2)), (Y, torch.tensor(4.0))],
    ids=["two heads", "in a dict", "one of another width", "not of this batch", "a loss"],
)  # fmt: skip
def test_the_first_of_several_heads_is_taken(output):
    if isinstance(output, tuple) and output[1].shape == (2, 1):
        with pytest.raises(ModelError, match=r"class scores \(0 \[2, 3\], 1 \[2, 1\]\); say which, for instance"):
            get_logits(output, 2)
    else:
        assert torch.equal(get_logits(output, 2), Y)


def test_features_are_no_class_scores():
    assert torch.equal(get_logits({"features": FEATURES, "scores": Y}), Y)
    assert torch.equal(get_logits({"pooler_output": FEATURES, "logits_per_image": Y, "logits_per_text": Y.T}, 2), Y)
    for output in ({"last_hidden_state": torch.zeros(2, 4, 7), "pooler_output": FEATURES}, {"embeddings": FEATURES}):
        with pytest.raises(ModelError, match="without a tensor of class scores; pass a callable"):
            get_logits(output)
    with pytest.raises(ModelError, match=r"several tensors .*\(0 \[2, 7\], 1 \[2, 3\]\).*lambda out: out\[0\]\[:, 3\]"):
        get_logits((FEATURES, Y))


def test_what_outputs_are_is_read_off_the_graph(device):
    z = Z.to(device).requires_grad_()
    assert find_link(z.softmax(1)) == find_link(z.softmax(1)[:, :2].squeeze()) == "softmax"
    assert find_link(z.sigmoid().flatten()) == "sigmoid"
    assert [find_link(t) for t in (z * 1, z.log_softmax(1), z.sigmoid() * z, z.detach())] == ["logits"] * 3 + [None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_probabilities_by_their_sums(dtype):
    many = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    assert are_probabilities((5 * many).softmax(1).to(dtype))
    assert not are_probabilities(many.sigmoid().to(dtype))
    assert not are_probabilities(torch.ones(2, 1, dtype=dtype))  # a single output says nothing
    assert not are_probabilities(torch.tensor([[1.5, -0.5]], dtype=dtype))


# ---- one output


def test_one_output_predicts_yes_or_no(device):
    z = torch.tensor([[2.0], [-1.0], [0.3]]).to(device).requires_grad_()
    targets = resolve_classes(None, z * 1, 3)
    assert repr(targets.classes) == "((0,), (Against(0),), (0,))"
    assert targets.compute_scores(z, 0).tolist() == [2.0, 1.0, pytest.approx(0.3)]
    assert repr(resolve_classes(None, z.sigmoid(), 3).classes) == "((0,), (Against(0),), (0,))"
    assert repr(resolve_classes(None, (z - 1).sigmoid()[:, 0], 3).classes) == "((0,), (Against(0),), (Against(0),))"
    with pytest.raises(
        TargetError, match=r"depends on whether it is a probability; give the class: 0, or camplug\.Against"
    ):
        resolve_classes(None, z.detach(), 3)  # 0.3 without a graph
    assert repr(resolve_classes(None, z.detach(), 3, link="logits").classes) == "((0,), (Against(0),), (0,))"
    with pytest.raises(TargetError, match=r"class 1 is outside the model's 1 classes.*Against\(0\) is the evidence"):
        resolve_classes(1, z, 3)


def test_the_sign_of_a_score(device):
    y = Y.to(device)
    targets = resolve_classes([[Against(2), 0], [1]], y, 2)
    assert repr(targets.classes) == "((Against(2), 0), (1,))"
    assert targets.compute_scores(y, 0).tolist() == [-2.0, 4.0]
    negative = resolve_classes([[Against(2), 0], [1]], y, 2, "negative")
    assert negative.compute_scores(y, 0).tolist() == [2.0, -4.0]
    assert negative.compute_scores(y, 1).tolist() == [0.0]
    assert resolve_classes(lambda out: out[:, 1], y, 2, "negative").compute_scores(y, 0).tolist() == [-1.0, -4.0]


# ---- labels

LABELS = [[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]]
Y5 = torch.zeros(2, 5)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float32])
def test_a_matrix_of_labels(dtype, device):
    matrix = torch.tensor(LABELS).to(device, dtype)
    for labels in (matrix, matrix.cpu().numpy(), matrix.tolist(), list(matrix)):
        targets = resolve_classes(labels, Y5, 2)
        assert targets.classes == ((1, 3), (0,))
        assert targets.per_image
        assert resolve_classes(labels[:1], Y5[:1], 1).classes == ((1, 3),)
        assert resolve_classes(labels[0], Y5[:1], 1).classes == ((1, 3),)
    with pytest.raises(TargetError, match=r"a matrix of 0 and 1 \[2,5\], and the model has 3 classes.*\[2,3\]"):
        resolve_classes(matrix, Y, 2)


def test_no_label_is_no_class():
    assert resolve_classes(torch.zeros(2, 5, dtype=torch.bool), Y5, 2).classes == ((), ())


def test_labels_of_two_classes_and_lists_of_them():
    two = torch.zeros(2, 2)
    assert resolve_classes(torch.tensor([[True, False], [True, True]]), two, 2).classes == ((0,), (0, 1))
    assert resolve_classes([[0, 1], [1, 0]], two, 2).classes == ((0, 1), (1, 0))  # lists name classes
    assert resolve_classes([[0, 1], [1, 1]], two, 2).classes == ((1,), (0, 1))  # no list names a class twice
    assert resolve_classes([[0, 1], [1, 1]], Y5, 2).classes == ((0, 1), (1, 1))  # or so it does
    assert resolve_classes(torch.tensor([[0, 1], [1, 0]]), Y5, 2).classes == (
        (0, 1),
        (1, 0),
    )  # labels would be five wide
    for columns in (1, 2):
        matrix = torch.tensor([[0, 1], [1, 0]])[:, :columns]
        with pytest.raises(TargetError, match=rf"\[2,{columns}\] of 0 and 1, which can be labels .* or their indices"):
            resolve_classes(matrix, two[:, :columns], 2)
    assert resolve_classes(torch.tensor([0, 1]), two, 2).classes == ((0,), (1,))  # one class per image


def test_squeezed_scores_of_a_single_image(device):
    z = Z[0].to(device)
    for output in (z, (z.softmax(0), z), {"p": z.softmax(0), "z": z}):
        assert torch.equal(get_logits(output, 1), z[None])
    assert get_logits(z, 3).shape == (3, 1)
    assert get_logits(z[1], 1).tolist() == [[5.0]]  # one output of one image, squeezed to nothing
    assert resolve_classes(None, z, 1).classes == ((1,),)
    assert resolve_classes(2, z, 1).compute_scores(z, 0).tolist() == [-2.0]
