"""`camplug pseudo-labels` with settings, seeds and heads that it refuses, each in one sentence."""

from __future__ import annotations

import sys

import heads
import pytest
from commands import good, refused
from contents import contents, marks
from heads import photos, random_seeds
from label_commands import MODEL, MODULE, PLAIN

from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.irn.checkpoint import save_irn
from camplug.wsss.train import Backbone


def test_other_settings_into_the_same_folder(place):
    options = (*PLAIN, "--threshold", "0.6", "--crf", "none")
    good(*options)
    before = marks(place / "labels")
    says = refused(*PLAIN, "--threshold", "0.5", "--crf", "none", "--certainty", "0.8")
    assert (
        "'labels' holds labels of other settings: certainty, threshold differ (certainty: 0.7 there, 0.8 now)" in says
    )
    says = refused(*PLAIN, "--weights", "irn.pt", "--threshold", "0.6", "--crf", "none")
    assert "walk.beta, walk.clear, walk.kind, walk.power, walk.steps, the weights of --weights differ" in says
    assert marks(place / "labels") == before


@pytest.mark.parametrize(
    "options,says",
    [
        ((), "--threshold is missing: up to which value a map is background; choose it with `camplug evaluate`"),
        (("--threshold", "1"), "a threshold of 1 is not possible"),
        (("--threshold", "-0.1"), "a threshold of -0.1 is not possible"),
        (("--threshold", "0.3", "--threshold-from", "r.json"), "exclude each other"),
        (("--threshold-from", "r.json"), "'r.json' is no report of `camplug evaluate`"),
        (
            ("--threshold", "0.3", "--crf", "dense"),
            "--crf 'dense'; allowed are irn, affinitynet, deeplab, par and none.",
        ),
        (("--threshold", "0.3", "--certainty", "1"), "certainty=1; give a probability between 0 and 1"),
        (("--threshold", "0.3", "--data", "scenes:none"), "'scenes:none' is not understood"),
        (("--threshold", "0.3", "--data", "nowhere"), "'nowhere' is missing; give the data set's folder."),
        (("--walk", "crf"), "--walk crf: allowed are none, irn, affinitynet, colour, and walks of plug-ins"),
        (("--walk", "crff"), "--walk = 'crff'; allowed are none, crf, affinitynet, colour, irn"),
        (("--walk", f"import:{MODULE}:tiny"), "give a camplug.wsss.recipe.Walk."),
        (("--walk", "irn"), "--walk irn needs --weights; `camplug train irn` makes them."),
        (("--walk", "affinitynet"), "--walk affinitynet needs --weights; `camplug train affinitynet` makes them."),
        (("--walk", "none", "--weights", "irn.pt"), "--walk none uses no --weights"),
        (("--walk", "affinitynet", "--weights", "irn.pt"), "'irn.pt' holds an IRNet; an AffinityNet is needed."),
        (
            ("--walk", "irn", "--weights", "affinitynet.pt"),
            "'affinitynet.pt' holds an AffinityNet; an IRNet is needed.",
        ),
        (("--weights", "none.pt"), "there is no file 'none.pt'; `camplug train` makes it."),
        (("--weights", "seeds/settings.json"), "is no file of trained heads, or damaged"),
        (
            ("--weights", "irn.pt", "-m", f"import:{MODULE}:tiny", "--checkpoint", "c.pt"),
            "there is no checkpoint 'c.pt'",
        ),
        (
            ("--weights", "irn.pt", "--num-classes", "7"),
            "on another classifier (" + MODEL + "), of other weights; give",
        ),
        (("--weights", "irn.pt", "-m", f"import:{MODULE}:other"), "this Sequential has no layer named 'one.0'"),
        (("--weights", "irn.pt", "-m", "resnet50"), "'resnet50' names no model"),
        (("--weights", "irn.pt", "--device", "gpu"), "the device 'gpu' is not available here"),
        (("--weights", "irn.pt", "--beta", "0"), "beta=0; give a number above 0"),
        (("--weights", "irn.pt", "--steps", "-1"), "steps=-1; give 0 to"),
        (("--weights", "irn.pt", "--alpha", "4"), "--alpha has no effect with --walk irn; leave it out."),
        (
            ("--weights", "affinitynet.pt", "--power", "2"),
            "--power has no effect with --walk affinitynet; leave it out.",
        ),
        (
            ("--weights", "affinitynet.pt", "--threshold", ".3"),
            "has no effect with --walk affinitynet; it has a background of its",
        ),
        (("--beta", "4", "--threshold", "0.3"), "--beta has no effect with --walk none; leave it out."),
        (("-m", "demo", "--threshold", "0.3"), "--model has no effect with --walk none; leave it out."),
        (("--maps",), "--maps stores the maps after a walk; give --weights of one, or --walk colour."),
        (("--walk", "colour", "--weights", "irn.pt"), "--walk colour uses no --weights; leave one of the two out."),
        (("--walk", "colour"), "--threshold is missing: up to which value a map is background"),
        (("--walk", "colour", "--clear", "0", "--threshold", "0.3"), "--clear has no effect with --walk colour"),
        (("--walk", "colour", "-m", "demo", "--threshold", "0.3"), "--model has no effect with --walk colour"),
        (("--crf", "par", "--certainty", "0.8", "--threshold", "0.3"), "--certainty has no effect with --crf par"),
        (("--maps", "--weights", "irn.pt", "--crf", "irn"), "--crf has no effect with --maps; leave it out."),
        (("--maps", "--weights", "irn.pt", "--dtype", "int8"), "dtype='int8'; allowed are 'uint8', 'float16'."),
        (("--dtype", "uint8", "--threshold", "0.3"), "--dtype has no effect without --maps; leave it out."),
    ],
)
def test_bad_input(place, options, says):
    assert says in refused(*PLAIN, *options)
    assert not contents(place)


def test_seeds_that_cannot_be_used(place):
    assert "there is no folder 'none'" in refused("pseudo-labels", "none", "--data", "scenes:6", "--threshold", "0.3")
    (place / "empty").mkdir()
    says = refused("pseudo-labels", "empty", "--data", "scenes:6", "--threshold", "0.3")
    assert "'empty' holds neither seeds" in says
    good(*PLAIN, "--threshold", "0.6", "--crf", "none")
    says = refused("pseudo-labels", "labels", "--data", "scenes:6", "--threshold", "0.3", "-o", "b")
    assert "'labels' holds label pictures; give a folder of seeds, made by `camplug seeds`." in says
    random_seeds(place / "own", photos(place / "mine", {"a.png": ["cat"]}))
    says = refused("pseudo-labels", "own", "--data", "scenes:6", "--threshold", "0.3", "-o", "b")
    assert "has no class 'striped disc', which the data has" in says
    assert "--data is missing" in refused("pseudo-labels", "seeds")
    assert "the folder of seeds is missing" in refused("pseudo-labels", "--data", "scenes:6")


def test_heads_that_do_not_name_their_classifier(place):
    save_irn(place / "mine.pt", IRN(Backbone(heads.tiny()), IRNHeadSettings(width=0)))
    says = refused(*PLAIN, "--weights", "mine.pt")
    assert "'mine.pt' does not name its classifier; give it with --model." in says
    good(*PLAIN, "--weights", "mine.pt", "-m", MODEL, "--crf", "none")


def test_without_lightning(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    says = refused(*PLAIN, "--weights", "irn.pt")
    assert says.endswith('this needs the package lightning; install it with: pip install "camplug[train]".')
    good(*PLAIN, "--threshold", "0.6", "--crf", "none")
