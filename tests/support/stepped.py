"""Training steps of every method on small networks and data, for the tests of steps and trainings on a device."""

from __future__ import annotations

from dataclasses import replace

import labelled
import torch
import trainable

from camplug.wsss.atm import ATM
from camplug.wsss.classifier import ClassifierCrops, build_classifier
from camplug.wsss.classifier.crops import ClassifierCrop
from camplug.wsss.classifier.method import Method
from camplug.wsss.deeplab import DeepLabTraining, build_deeplab
from camplug.wsss.deeplab.crops import SegmentationCrop
from camplug.wsss.fpr import FPR
from camplug.wsss.rpnet import RPNet

METHODS = {
    "classifier": Method(),
    "atm": ATM(),
    "rpnet": RPNet(width=8),
    "rpnet of classes": RPNet(width=8, regions="classes", images=4, stages="last"),
    "fpr": FPR(clusters=3, negatives=4, pixel_rectification=0.1),
}
HEADS = ("large-fov", "aspp", "v3+")


def of_method(name):
    """A module in training, with prototypes where it needs some, and a batch."""
    method, data = METHODS[name], trainable.scenes()
    torch.manual_seed(1)
    network = build_classifier(
        build_classifier(trainable.net(), data.classes), data.classes, neck=method.get_neck_settings()
    )
    torch.nn.init.normal_(network.head.weight, std=0.3)
    pictures = ClassifierCrops(data, crop=48, sides=(48, 48))
    module = method.make_module(network, replace(trainable.LEARNING, focal=2.0), pictures).train()
    items = method.make_items(pictures)
    batch = ClassifierCrop(*map(torch.stack, zip(*(items[0, i] for i in range(4)), strict=True)))
    if isinstance(method, FPR):
        module.prototypes = module.gather(module.network, module.normalize)
    return quiet(module), batch


def of_deeplab(head):
    """A module in training with all of its losses, and a batch."""
    settings = replace(
        labelled.NETWORK, head=head, width=8, loss_scales=(1, 0.5), loss="balanced", refinement=0.08, cut=2
    )
    torch.manual_seed(1)
    module = DeepLabTraining(build_deeplab(trainable.net(), "abc", settings), settings, ids=labelled.scenes().ids)
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0  # devices draw different numbers
    labels = torch.randint(0, 4, (2, 48, 48)).byte()
    labels[:, :, :8] = 255
    batch = SegmentationCrop(torch.randn(2, 3, 48, 48), labels, torch.rand(2, 48, 48), torch.arange(2))
    return quiet(module.train()), batch


def of(name):
    """A module and a batch of a method, or of DeepLab with a head."""
    return of_deeplab(name) if name in HEADS else of_method(name)


def quiet(module):
    module.log = module.log_dict = lambda *args, **options: None
    return module


def move(module, device):
    """The module on a device, with what Lightning does not know of."""
    module.to(device)
    if getattr(module, "prototypes", None) is not None:
        module.prototypes = module.prototypes.to(device)
    return module
