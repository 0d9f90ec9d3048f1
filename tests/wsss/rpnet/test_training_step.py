"""A step of RPNet's training against one composed by hand, what is left out, gradients, statistics, awkward batches."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from trainable import LEARNING, Net, net, scenes

from camplug.errors import InputError, ModelError
from camplug.wsss.classifier import ClassifierCrops, ClassifierTraining, build_classifier
from camplug.wsss.classifier.crops import ClassifierCrop
from camplug.wsss.rpnet import RPNet, RPNetTraining, find_confident_regions, foreground_probability

RPNET = RPNet(width=8, stages="last,4")

pytestmark = pytest.mark.filterwarnings("ignore:.*self.trainer. reference")


def plainly(method=RPNET, seed=0, model=None, learning=LEARNING, **options):
    """The module of a training without a trainer, its head and non-local block far from their first values."""
    torch.manual_seed(seed)
    data = scenes()
    network = build_classifier(
        net(seed) if model is None else model, data.classes, neck=method.get_neck_settings(), **options
    )
    for block in filter(None, (network.neck.context, network.neck.enhanced_context)):
        nn.init.normal_(block.norm.weight, std=0.3)
    network.head.weight.data.mul_(3)
    return method.make_module(network, learning, ClassifierCrops(data, crop=48, sides=(48, 48))).train()


def batch(n=4, method=RPNET, present=None):
    pictures = ClassifierCrops(scenes(), crop=48, sides=(48, 48))
    items = [method.make_items(pictures)[0, i] for i in range(n // method.images)]
    found = ClassifierCrop(*(torch.cat(parts) for parts in zip(*items, strict=True)))
    return found if present is None else found._replace(present=present)


def values(module, pictures, step=3):
    return module.compute_losses(module.normalize(pictures.pixels), pictures, step)


# ---- a step by hand


def by_hand(module, pictures, step=3):
    """With the parts of the network called one by one, nothing shared, and the losses as loops."""
    method, network = module.method, module.network
    x = module.normalize(pictures.pixels)
    neck, body = network.neck, network.body.model
    generator = module.make_generator(step)

    def normalized(norm, y):  # by the batch
        mean = y.mean((0, 2, 3), keepdim=True)
        z = (y - mean) / (y.var((0, 2, 3), unbiased=False, keepdim=True) + norm.eps).sqrt()
        return z * norm.weight[:, None, None] + norm.bias[:, None, None]

    def context(z, block=neck.context):
        theta, phi, g = (part(z).flatten(2) for part in (block.theta, block.phi, block.g))
        weights = torch.einsum("nki,nkj->nij", theta, phi) / theta.shape[-1]
        y = torch.einsum("nij,nkj->nki", weights, g).view(len(z), -1, *z.shape[2:])
        return z + normalized(block.norm, block.out(y))

    def region_of(reduced):
        if method.regions == "channels":
            return find_confident_regions(reduced, method.threshold)
        maps = F.conv2d(context(reduced), network.head.weight).detach()
        region = torch.zeros(len(maps), *maps.shape[2:], dtype=torch.bool)
        for i, labels in enumerate(pictures.present):
            for c in labels.nonzero().flatten():
                region[i] |= maps[i, c].relu() / (maps[i, c].relu().max() + 1e-5) >= method.threshold
        return region

    def maps_at(scale):
        side = max(32, 32 * round(48 * scale / 32))
        images = x if scale == 1 else F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
        two = body.two(body.one(images))
        reduced = neck.reduce(body.three(two))
        earlier = F.interpolate(two.detach(), reduced.shape[2:], mode="bilinear", align_corners=False)
        block = neck.context if method.enhanced_block == "shared" else neck.enhanced_context
        if not method.prototypes:
            return reduced, F.conv2d(context(reduced, block), network.head.weight), None
        blocks = {"last": reduced, "4": earlier}
        foreground = foreground_probability(
            [blocks[place] for place in method.stage_names],
            region=region_of(reduced),
            group=method.images,
            keep=method.random_part,
            scale=method.scale,
            border=method.border,
            generator=generator,
            smooth=method.smooth,
            drop=method.random_part < 1,
        )
        return reduced, F.conv2d(context(foreground * reduced, block), network.head.weight), foreground

    reduced, first, foreground = maps_at(1)
    plain = F.conv2d(context(reduced), network.head.weight)
    target = first.relu()
    for scale in method.scales[1:]:
        with torch.no_grad():
            other = maps_at(scale)[1].relu()
        target = target + F.interpolate(other, target.shape[2:], mode="bilinear", align_corners=False)
    target = target / len(method.scales)
    classification, distance = 0.0, 0.0
    n, classes = pictures.present.shape
    for i in range(n):
        for c in range(classes):
            y, z = pictures.present[i, c], plain[i, c].mean()
            classification = classification - (y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)) / (n * classes)
            if y:
                wanted = target[i, c] / (target[i, c].max() + 1e-5)
                found = plain[i, c].relu() / (plain[i, c].relu().max() + 1e-5)
                distance = distance + ((wanted - found) ** 2).mean() / (n * classes)
    shares = (region_of(reduced).float().mean(), foreground.mean()) if method.prototypes else ()
    return classification, distance, shares


HAND = {
    "default": RPNET,
    "one image": replace(RPNET, images=1),
    "one block": replace(RPNET, enhanced_block="shared"),
    "no prototypes": replace(RPNET, prototypes=False),
    "all four, three stages' rest": replace(RPNET, images=4, stages="4"),
    "last alone, no parts": replace(RPNET, stages="last", random_part=1.0, smooth=False),
    "regions of classes": replace(RPNET, regions="classes", threshold=0.6),
    "other numbers": replace(RPNET, threshold=0.6, scale=0.9, border="zero", scales=(1.0, 2.0), random_part=0.2),
}


@pytest.mark.parametrize("name", HAND)
def test_a_step_is_that_by_hand(name):
    module, slow = plainly(HAND[name]).double(), plainly(HAND[name]).double()
    pictures = batch(4, HAND[name])
    pictures = pictures._replace(present=pictures.present.double())
    logged = {}
    module.log_dict = lambda values, **options: logged.update(values)
    found = values(module, pictures)
    classification, distance, shares = by_hand(slow, pictures)
    assert found.keys() == {"classification", "self_supervised"}
    assert found["classification"][0] == 1.0
    assert found["self_supervised"][0] == 10.0
    assert torch.allclose(found["classification"][1], classification)
    assert torch.allclose(found["self_supervised"][1], distance)
    assert float(distance.detach()) > 1e-3
    assert list(logged) == ["confident", "foreground"][: len(shares)]
    for name, share in zip(logged, shares, strict=True):
        assert torch.allclose(logged[name].double(), share.double())
    sum(w * v for w, v in found.values()).backward()
    (classification + 10 * distance).backward()
    for (key, one), other in zip(module.named_parameters(), slow.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-9), key


def test_a_step_on_groups_is_one_on_their_images():
    module = plainly()
    pictures = batch(4)
    groups = ClassifierCrop(*(part.view(2, 2, *part.shape[1:]) for part in pictures))
    module.log = module.log_dict = lambda *args, **options: None
    total = module.training_step(groups, 3)
    found = values(plainly(), pictures)
    assert torch.equal(total, found["classification"][1] + 10 * found["self_supervised"][1])


# ---- what is left out costs nothing


def passes(method):
    module = plainly(method)
    calls = Counter()
    parts = {"body": module.network.body, "block": module.neck.context, "head": module.network.head}
    for name, part in (parts | {"enhanced": module.neck.enhanced_context}).items():
        if part is None:
            continue
        part.register_forward_hook(lambda *_, name=name: calls.update([name]))
    pictures = batch(4, method)
    values(module, pictures)
    return dict(calls)


def test_what_is_left_out_is_not_computed():
    assert passes(RPNET) == {"body": 4, "block": 1, "enhanced": 4, "head": 5}
    assert passes(replace(RPNET, enhanced_block="shared")) == {"body": 4, "block": 5, "head": 5}
    assert passes(replace(RPNET, scales=(1.0,))) == {"body": 1, "block": 1, "enhanced": 1, "head": 2}
    assert plainly(replace(RPNET, prototypes=False)).stages == []
    assert passes(replace(RPNET, weight=0.0)) == {"body": 1, "block": 1, "head": 1}
    off = plainly(replace(RPNET, weight=0.0, stages="no such layer"))
    assert off.stages == []
    pictures = batch(4)
    with FlopCounterMode(display=False) as mine:
        found = values(off, pictures)
    ordinary = ClassifierTraining(deepcopy(off.network), LEARNING).train()
    with FlopCounterMode(display=False) as theirs:
        wanted = ordinary.compute_losses(ordinary.normalize(pictures.pixels), pictures, 3)
    assert mine.get_total_flops() == theirs.get_total_flops()
    assert found.keys() == wanted.keys()
    assert torch.equal(found["classification"][1], wanted["classification"][1])


# ---- gradients


def test_the_gradient_ends_at_an_earlier_stage():
    """Prototypes of stage 4 alone teach it nothing; the last map's way through it is cut here by hand."""
    module = plainly(replace(RPNET, stages="4", scales=(1.0,)))
    module.network.body.model.three.register_forward_pre_hook(lambda _, args: (args[0].detach(),))
    values(module, batch(4))["self_supervised"][1].backward()
    gradients = {name: p.grad for name, p in module.network.named_parameters()}
    assert all(g is None for name, g in gradients.items() if ".one." in name or ".two." in name)
    assert all(float(g.abs().sum()) > 0 for name, g in gradients.items() if ".three." in name or "head" in name)


def test_only_scale_1_has_a_gradient():
    module = plainly()
    modes = []
    module.network.body.register_forward_hook(lambda m, args, out: modes.append((args[0].shape[-1], out.requires_grad)))
    values(module, batch(4))
    assert modes == [(48, True), (32, False), (64, False), (96, False)]


def test_frozen_layers_stay():
    module = plainly(learning=replace(LEARNING, cut=4))
    pictures = batch(4)
    sum(w * v for w, v in values(module, pictures).values()).backward()
    gradients = {name: p.grad for name, p in module.network.named_parameters()}
    assert all(g is None for name, g in gradients.items() if ".one." in name or ".two." in name)
    assert all(g is not None for name, g in gradients.items() if ".one." not in name and ".two." not in name)


def test_half_precision_has_the_same_gradients():
    """Autocast remembers weights; the passes without a gradient must not leave theirs behind."""
    whole, half = plainly(), plainly()
    pictures = batch(4)
    for module in (whole, half):
        with torch.autocast("cpu", torch.bfloat16, enabled=module is half):
            found = values(module, pictures)
            loss = sum(w * v for w, v in found.values())
        assert loss.dtype == torch.float32
        loss.backward()
    for (name, one), other in zip(whole.network.named_parameters(), half.network.parameters(), strict=True):
        if one.grad.norm() > 1e-4:
            assert F.cosine_similarity(one.grad.flatten(), other.grad.flatten(), dim=0) > 0.8, name


# ---- running statistics


def test_running_statistics_are_the_plain_branchs():
    """Of one pass over images at scale 1, as in ordinary training."""
    module, pictures = plainly(), batch(4)
    ordinary = ClassifierTraining(deepcopy(module.network), LEARNING).train()
    before = {name: b.clone() for name, b in module.network.named_buffers()}
    values(module, pictures)
    ordinary.compute_losses(ordinary.normalize(pictures.pixels), pictures, 3)
    after = dict(module.network.named_buffers())
    for name, buffer in ordinary.network.named_buffers():
        assert torch.equal(after[name], buffer), name
        assert torch.equal(buffer, before[name]) == ("enhanced_context" in name), name
    assert all(m.track_running_stats for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    fixed = plainly(learning=replace(LEARNING, batch_norm="fixed"))
    before = {name: b.clone() for name, b in fixed.network.body.named_buffers()}
    values(fixed, pictures)
    assert all(torch.equal(b, before[name]) for name, b in fixed.network.body.named_buffers())


def test_statistics_move_again_after_an_error():
    module = plainly()
    module.neck.enhanced_context.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        values(module, batch(4))
    assert all(m.track_running_stats for m in module.modules() if isinstance(m, nn.BatchNorm2d))


# ---- awkward batches


def test_no_class_at_all():
    module = plainly()
    found = values(module, batch(4, present=torch.zeros(4, 3)))
    assert float(found["self_supervised"][1].detach()) == 0
    sum(w * v for w, v in found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    assert float(module.network.head.weight.grad.abs().sum()) > 0


def test_images_all_black_and_maps_all_negative():
    module = plainly()
    nn.init.zeros_(module.neck.reduce.weight)  # no confident region anywhere
    found = values(module, batch(4))
    sum(w * v for w, v in found.values()).backward()
    assert all(torch.isfinite(value) for _, value in found.values())
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_one_image():
    method = replace(RPNET, images=1)
    found = values(module := plainly(method), batch(1, method))
    sum(w * v for w, v in found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    narrow = batch(1, method)
    narrow = narrow._replace(pixels=narrow.pixels[..., :8, :8])
    with pytest.raises(InputError, match=r"one image of 8 pixels has a map of one position.*give a larger batch"):
        values(plainly(method, learning=replace(LEARNING, batch_norm="fixed")), narrow)


# ---- what is refused


def test_another_neck():
    with pytest.raises(ModelError, match="with a RegionNeck, this one has Identity; build it with over"):
        RPNetTraining(build_classifier(Net(), ["a", "b"]), LEARNING, RPNET)
