"""Named targets: values by hand, gradients that reach the layers, and one sentence for what does not fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import camplug
from camplug.errors import TargetError
from camplug.targets import ClassDifference, ClassSum, Detection, OutputValue, Region, Similarity

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [8.0, 8.0, 20.0, 20.0], [7.0, 7.0, 20.0, 20.0]])


def make_detections(scores):
    return {"boxes": BOXES, "labels": torch.tensor([1, 1, 2]), "scores": scores}


def test_detection_takes_the_box_of_the_class_with_the_highest_overlap():
    output = [make_detections(torch.tensor([0.9, 0.4, 0.8])), make_detections(torch.tensor([0.1, 0.2, 0.3]))]
    assert Detection((9, 9, 20, 20), 1)(output).tolist() == pytest.approx([0.4, 0.2])
    assert Detection((0, 0, 9, 9), 1)(output).tolist() == pytest.approx([0.9, 0.1])
    assert Detection((0, 0, 20, 20), 2)(output).tolist() == pytest.approx([0.8, 0.3])


def test_detection_of_hugging_face_is_a_softmax_at_the_nearest_query():
    logits = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]])
    boxes = torch.tensor([[[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]]])
    output = SimpleNamespace(logits=logits, pred_boxes=boxes)
    want = torch.softmax(logits[0, 1], 0)[0]
    assert float(Detection((0.6, 0.6, 1.0, 1.0), 0)(output)) == pytest.approx(float(want))


@pytest.mark.parametrize(
    ("target", "output", "message"),
    [
        (
            Detection((50, 50, 60, 60), 1),
            [make_detections(torch.ones(3))],
            "image 0 .* no detection of class 1 .* has 2",
        ),
        (Detection((0, 0, 9, 9), 5), [make_detections(torch.ones(3))], "no detection of class 5 .* has 0"),
        (Detection((0, 0, 9, 9), 1), torch.ones(1, 3), "needs a list .* puts out Tensor"),
        (Region(0), torch.ones(1, 3), r"Region needs the scores \[N,C,h,w\].* \[1, 3\]"),
        (Region(1), torch.tensor([[[[1.0]], [[0.0]]]]), "image 0 .* predicts class 1 nowhere"),
        (Region(1, torch.zeros(1, 1)), torch.ones(1, 2, 1, 1), "image 0 .* empty mask"),
        (Region(1, torch.ones(2, 2)), torch.ones(1, 2, 1, 1), r"mask is \[2, 2\]"),
        (ClassDifference(0, 3), torch.ones(1, 3), "index 3 is outside the model's 3 outputs"),
        (OutputValue(1), torch.ones(4), "index 1 is outside the model's 1 outputs"),
        (Similarity(torch.ones(4)), torch.ones(1, 3), r"embeddings are \[1, 3\], the given \[4\]"),
    ],
)
def test_what_does_not_fit_is_refused(target, output, message):
    with pytest.raises(TargetError, match=message):
        target(output)


def test_weights_must_fit():
    with pytest.raises(TargetError, match="2 classes and 1 weights"):
        ClassSum([0, 1], [1.0])


def test_region_without_mask_is_what_is_predicted():
    scores = torch.randn(2, 3, 4, 5)
    want = [scores[i, 2][scores[i].argmax(0) == 2].mean() for i in range(2)]
    torch.testing.assert_close(Region(2)({"out": scores, "aux": torch.zeros(2, 3, 4, 5)}), torch.stack(want))


def test_a_map_of_a_difference_is_that_of_the_difference_of_the_heads_weights():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head, one = nn.Linear(5, 3), nn.Linear(5, 1)
    with torch.no_grad():
        one.weight.copy_(head.weight[:1] - head.weight[2:])
    x = torch.randn(2, 3, 6, 7)
    ours = camplug.GradCAM(nn.Sequential(body, head)).maps(x, ClassDifference(0, 2))
    torch.testing.assert_close(ours, camplug.GradCAM(nn.Sequential(body, one)).maps(x, 0))


def test_a_detector_is_explained_by_the_score_of_one_box():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x):
            scores = self.head(torch.relu(self.conv(x)).mean((2, 3))).sigmoid()
            return [make_detections(s) for s in scores]

    torch.manual_seed(0)
    model, x = Detector().eval(), torch.randn(2, 3, 8, 8)
    plain = nn.Sequential(model.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head)
    ours = camplug.GradCAM(model, "conv").maps(x, Detection((9, 9, 20, 20), 1))
    torch.testing.assert_close(ours, camplug.GradCAM(plain, "0").maps(x, lambda out: out.sigmoid()[:, 1]))


def make_encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.mark.parametrize(
    "name", ["GradCAM", "ScoreCAM", "AblationCAM", "Occlusion(4, 4)", "RISE(8, batch_size=3)", "MultiView(GradCAM)"]
)
def test_scores_with_values_per_image_are_those_of_each_image(name):
    model, x, wanted = make_encoder(), torch.randn(2, 3, 8, 8), torch.randn(2, 4)
    explainer = camplug.create(name, model)

    def explain(images, embedding):
        torch.manual_seed(0)
        return explainer.maps(images, Similarity(embedding))

    each = torch.cat([explain(x[i : i + 1], wanted[i]) for i in range(2)])
    torch.testing.assert_close(explain(x, wanted), each)


def test_scores_with_values_per_image_of_many_photographs():
    explainer, x, wanted = camplug.GradCAM(make_encoder()), torch.randn(3, 3, 8, 8), torch.randn(3, 4)
    together = explainer.explain(x, Similarity(wanted), batch_size=2)
    for i, one in enumerate(together):
        torch.testing.assert_close(one.maps, explainer.explain(x[i], Similarity(wanted[i])).maps)
    with pytest.raises(TargetError, match=r"embeddings are \[2, 4\], the given \[3, 4\]"):
        explainer.maps(x[:2], Similarity(wanted))


def test_a_region_is_mirrored_with_the_image():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :3] = True
    explainer = camplug.LayerCAM(model, layers="0", normalize=None)
    x = torch.randn(1, 3, 8, 8)
    plain = explainer.maps(x, Region(1, mask))
    mirrored = explainer.maps(x.flip(-1), Region(1, mask.flip(-1))).flip(-1)
    both = camplug.MultiView(explainer, scales=(1,), normalize=None).maps(x, Region(1, mask))
    torch.testing.assert_close(both, plain + mirrored)
    with pytest.raises(TargetError, match="explain detections without MultiView"):
        camplug.MultiView(explainer, scales=(2,)).maps(x, Detection((0, 0, 4, 4), 1))


def test_classes_of_a_sum_may_be_a_tensor():
    output = torch.tensor([[5.0, 1.0, 2.0]])
    assert ClassSum(torch.tensor([0, 2]), torch.tensor([1.0, 0.5]))(output).tolist() == [6.0]
