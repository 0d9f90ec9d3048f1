"""What is frozen, with which rates the rest learns, and what settings refuse."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from trainable import Net, net

from camplug.errors import InputError
from camplug.wsss.classifier import (
    PRESETS,
    ClassifierTraining,
    LearningSettings,
    SpanSettings,
    build_classifier,
    get_preset,
)
from camplug.wsss.classifier.freeze import freeze_until


def free(network):
    return {n for n, p in network.body.named_parameters() if p.requires_grad}


def test_cut_at_a_stride_or_a_layer_is_irns():
    """IRN cuts a ResNet's gradient behind layer2: layer3, layer4 and the head learn."""
    for cut in (8, "layer2"):
        network = build_classifier(torchvision.models.resnet18(num_classes=3), "abc")
        freeze_until(network.body, cut)
        assert {n.split(".")[1] for n in free(network)} == {"layer3", "layer4"}


def test_cut_of_a_timm_network():
    network = build_classifier(timm.create_model("tf_efficientnet_lite0", num_classes=3), "abc")
    freeze_until(network.body, 8)
    assert "model.blocks.3.0.conv_pw.weight" in free(network)  # of stride 8 still, in a block that ends at 16
    parts = {".".join(n.split(".")[1:3]) for n in free(network)}
    assert parts == {"blocks.3", "blocks.4", "blocks.5", "blocks.6", "conv_head.weight", "bn2.weight", "bn2.bias"}


def test_a_bottleneck_that_starts_at_the_stride_learns():
    network = build_classifier(torchvision.models.resnet50(num_classes=3), "abc")
    freeze_until(network.body, 8)
    assert {"model.layer3.0.conv1.weight", "model.layer3.0.bn1.weight"} <= free(network)
    assert {n.split(".")[1] for n in free(network)} == {"layer3", "layer4"}


def test_embeddings_of_a_transformer_are_in_front_of_the_cut():
    """One of them that learned would take the backward pass through the frozen blocks."""
    network = build_classifier(timm.create_model("test_vit", num_classes=3), "abc")
    last = len(network.body.model.blocks) - 1
    freeze_until(network.body, f"blocks.{last - 1}")
    assert {".".join(n.split(".")[1:3]) for n in free(network)} == {f"blocks.{last}", "norm.weight", "norm.bias"}
    x = torch.randn(1, 3, 160, 160)
    held = []
    with network.body.model.blocks[last].register_forward_pre_hook(lambda module, args: held.append(args[0])):
        network.body(x)
    assert not held[0].requires_grad


def test_loose_parameters_behind_the_cut_learn():
    class Scaled(Net):
        """Scales of its own in front of the first layer, behind the last one, and one that is used twice."""

        def __init__(self):
            super().__init__()
            self.first, self.last, self.both = (torch.nn.Parameter(torch.ones(())) for _ in range(3))

        def forward(self, x):
            return super().forward(x * self.first * self.both) * self.last * self.both

    network = build_classifier(Scaled(), "abc")
    freeze_until(network.body, 4)
    assert {"model.last", "model.both"} <= free(network)
    assert "model.first" not in free(network)


def test_no_cut_trains_all_and_another_stride_is_refused():
    network = build_classifier(net(), "abc")
    assert freeze_until(network.body, None) == []
    assert len(free(network)) == 12
    with pytest.raises(InputError, match="cut '64': the network has no map of that stride"):
        freeze_until(network.body, 64)
    with pytest.raises(InputError, match="cut 'layerX': this Net has no layer named 'layerX'"):
        freeze_until(network.body, "layerX")


def test_fixed_statistics_do_not_move_and_scales_learn():
    learning = LearningSettings(cut=4, batch_norm="fixed")
    module = ClassifierTraining(build_classifier(net(), "abc"), learning)
    module.train()
    before = {k: v.clone() for k, v in module.network.body.state_dict().items()}
    module.network(torch.rand(4, 3, 48, 48)).square().sum().backward()
    after = module.network.body.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    body: Net = module.network.body.model
    assert body.three[1].weight.grad.abs().sum() > 0
    assert body.two[0].weight.grad is None
    assert not body.two[1].training
    # with trained statistics only what is frozen stays
    module = ClassifierTraining(build_classifier(net(), "abc"), LearningSettings(cut=4, batch_norm="train"))
    module.train()
    module.network(torch.rand(4, 3, 48, 48))
    body = module.network.body.model
    assert body.two[1].num_batches_tracked == 0
    assert body.three[1].num_batches_tracked == 1
    module.eval()
    assert not body.three[1].training


def test_groups_have_their_rates():
    module = ClassifierTraining(build_classifier(net(), "abc"), LearningSettings(head_lr=7.0, cut=4))
    assert [factor for _, factor in module.list_learning_parts()] == [1.0, 7.0, 7.0]


def test_presets():
    learning, span = get_preset("irn")
    # Ahn et al., 2019: SGD without momentum, poly power .9, lr .1 and 1 for the head, 5 epochs of 16 crops of 512
    assert (learning.schedule.lr, learning.schedule.momentum, learning.schedule.power) == (0.1, 0.0, 0.9)
    assert (learning.head_lr, learning.cut, learning.batch_norm) == (10.0, 8, "fixed")
    assert (span.epochs, span.batch, span.crop, span.sides) == (5, 16, 512, (320, 640))
    assert get_preset("modern")[0].schedule.shape == "one-cycle"
    assert set(PRESETS) == {"irn", "modern"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: get_preset("paper"), "preset='paper'; allowed are irn, modern"),
        (lambda: LearningSettings(cut=0), "cut=0; give a stride in pixels such as 8"),
        (lambda: LearningSettings(focal=-1), "focal=-1; give 0 or more"),
        (lambda: LearningSettings(batch_norm="frozen"), "batch_norm='frozen'; allowed are fixed and train"),
        (lambda: SpanSettings(epochs=0), "epochs=0; give at least 1"),
        (lambda: SpanSettings(sides=(640, 320)), r"sides=\(640, 320\); give the smallest and the largest"),
        (lambda: SpanSettings(seed=-1), "seed=-1; give 0 or more"),
    ],
)
def test_refusals(make, says):
    with pytest.raises(InputError, match=says):
        make()
