"""Files of trained heads: what comes back, on which classifier, and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from heads import Tiny, tiny
from torch import nn

from camplug.errors import InputError
from camplug.images.preprocess import Preprocess
from camplug.wsss.affinitynet import AffinityNet, AffinityNetHeadSettings
from camplug.wsss.affinitynet.checkpoint import load_affinitynet, save_affinitynet
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.irn.checkpoint import load_irn, save_irn
from camplug.wsss.train import Backbone, ScheduleSettings
from camplug.wsss.train.heads import load_heads, save_heads

MADE_WITH = {"model": "import:heads:tiny", "checkpoint": "/weights/a.pt", "num_classes": None}
PHOTO = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)


def an_irn(**options):
    irn = IRN(
        Backbone(tiny(), **options), IRNHeadSettings(width=16, schedule=ScheduleSettings("adamw", lr=0.3, warmup=0.25))
    )
    irn.displacement.mean.copy_(torch.tensor([0.5, -2.0]))
    return irn.eval()


def an_affinitynet():
    return AffinityNet(Backbone(tiny()), AffinityNetHeadSettings(radius=4, width=112)).eval()


def test_irn_comes_back(tmp_path, device):
    irn = an_irn().to(device)
    save_irn(tmp_path / "irn.pt", irn, MADE_WITH)
    back = load_irn(tmp_path / "irn.pt", tiny().to(device))
    assert back.settings == irn.settings
    assert not back.training
    assert torch.equal(irn.boundaries(PHOTO), back.boundaries(PHOTO))
    assert torch.equal(irn.displacements(PHOTO), back.displacements(PHOTO))
    heads = load_heads(tmp_path / "irn.pt")
    assert (heads.kind, heads.layers, heads.made_with) == ("irn", irn.backbone.names, MADE_WITH)
    assert sum(t.numel() for t in heads.state.values()) == sum(t.numel() for t in irn.state_dict().values())
    assert os.listdir(tmp_path) == ["irn.pt"]


def test_irn_without_displacements_and_with_other_layers_and_normalisation(tmp_path):
    preprocess = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.6))
    backbone = Backbone(tiny(), ["two", "one"], preprocess)
    irn = IRN(backbone, IRNHeadSettings(width=0)).eval()
    save_irn(tmp_path / "irn.pt", irn)
    back = load_irn(tmp_path / "irn.pt", tiny())
    assert back.backbone.names == ["one", "two"]
    assert (back.backbone.preprocess.mean, back.backbone.preprocess.std) == (preprocess.mean, preprocess.std)
    assert torch.equal(irn.boundaries(PHOTO), back.boundaries(PHOTO))
    assert back.displacements(PHOTO) is None


def test_affinitynet_comes_back(tmp_path):
    net = an_affinitynet()
    save_affinitynet(tmp_path / "affinitynet.pt", net)
    back = load_affinitynet(tmp_path / "affinitynet.pt", tiny())
    assert back.settings == net.settings
    one, other = (n.affinities(PHOTO).matrix.toarray() for n in (net, back))
    np.testing.assert_array_equal(one, other)


def test_the_file_is_plain_data(tmp_path):
    save_irn(tmp_path / "irn.pt", an_irn(), MADE_WITH)
    document = torch.load(tmp_path / "irn.pt", weights_only=True)
    assert document["settings"]["schedule"]["warmup"] == 0.25
    assert document["fingerprint"] == Backbone(tiny()).fingerprint()


def refusal(function, *arguments, **options):
    with pytest.raises(InputError) as error:
        function(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


def test_another_classifier_is_refused(tmp_path):
    file = tmp_path / "irn.pt"
    save_irn(file, an_irn(), MADE_WITH)
    says = refusal(load_irn, file, tiny(seed=4))
    assert "were trained on another classifier (import:heads:tiny with a.pt), of other weights; give that one" in says
    says = refusal(load_irn, file, nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert "another classifier (import:heads:tiny with a.pt): this Sequential has no layer named 'one.0'" in says
    assert "another classifier" in refusal(load_irn, file, Tiny(7).eval())
    save_irn(file, an_irn())
    assert "were trained on another classifier, of other weights" in refusal(load_irn, file, tiny(seed=4))


def test_other_layers_are_refused(tmp_path):
    file = tmp_path / "irn.pt"
    save_irn(file, an_irn(), MADE_WITH)
    says = refusal(load_heads, file, Backbone(tiny(), ["one", "two"]))
    assert "read the layers one.0, one, two, three, this backbone has one, two; give Backbone(" in says
    assert load_heads(file, Backbone(tiny()), "irn").kind == "irn"


def test_heads_of_another_kind_are_refused(tmp_path):
    save_irn(tmp_path / "irn.pt", an_irn())
    save_affinitynet(tmp_path / "psa.pt", an_affinitynet())
    assert "irn.pt' holds an IRNet; an AffinityNet is needed." in refusal(load_affinitynet, tmp_path / "irn.pt", tiny())
    assert "psa.pt' holds an AffinityNet; an IRNet is needed." in refusal(load_irn, tmp_path / "psa.pt", tiny())


def test_files_that_are_none(tmp_path):
    assert "there is no file" in refusal(load_heads, tmp_path / "none.pt")
    assert "cannot be read (Is a directory)" in refusal(load_heads, tmp_path)
    file = tmp_path / "a.pt"
    save_irn(file, an_irn())
    whole = file.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        file.write_bytes(content)
        assert "a.pt' is no file of trained heads, or damaged; give one made by `camplug train`." in refusal(
            load_heads, file
        )
    for value in (tiny().state_dict(), {"state_dict": {}}, [1, 2], torch.zeros(3), {"format": "camplug heads 1"}, 5):
        torch.save(value, file)
        assert "is no file of trained heads" in refusal(load_heads, file)
    torch.save(tiny(), file)  # would run code
    assert "is no file of trained heads" in refusal(load_heads, file)


def test_a_place_that_cannot_be_written(tmp_path):
    says = refusal(save_heads, tmp_path / "none" / "a.pt", an_irn(), {})
    assert "a.pt' cannot be written (No such file or directory)" in says


def test_settings_of_a_network_are_those_of_the_file(tmp_path):
    save_irn(tmp_path / "irn.pt", an_irn())
    heads = load_heads(tmp_path / "irn.pt")
    settings = IRNHeadSettings(**{**heads.settings, "schedule": ScheduleSettings(**heads.settings["schedule"])})
    assert settings == replace(an_irn().settings)
