"""`camplug compare`: the methods that it compares and those that it leaves out."""

from __future__ import annotations

import json

import pytest
import torch
from commands import good, refused
from PIL import Image
from square_commands import MODEL, red_panels

from camplug import load_model
from camplug.explain import create, list_methods
from camplug.explain.photographs import read_input
from camplug.trust import Trust


def test_compare_takes_one_class(place, square):
    said = refused("compare", square, "-m", MODEL, "--class", "0", "--class", "1")
    assert "--class is given 2 times, and one picture compares methods on one class" in said


def test_compare(place, square):
    result = good(
        "compare", square, "-m", MODEL, "-c", "bright", "--methods", "cam,gradcam*,fully", "--json", "-o", "c.png"
    )
    document = json.loads(result.stdout)
    assert document["methods"] == ["cam", *list_methods("gradcam*"), "fully"]
    assert document["refused"] == []
    assert document["written"] == ["c.png"]
    assert document["explained"][0]["name"] == "bright spot"
    assert Image.open("c.png").format == "PNG"


def test_compare_leaves_out_methods_of_many_passes_and_of_transformers_unless_they_are_named(place, square):
    many = ["ablationcam", "integratedgradients", "occlusion", "reciprocam", "rise", "scorecam", "smoothgrad"]
    many.append("smoothgradcam++")
    attention = ["classtoken", "gradeclip", "gradientrollout", "legrad", "rollout"]
    names = json.loads(good("compare", square, "-m", MODEL, "-c", "0", "--json").stdout)["methods"]
    assert names == [name for name in list_methods() if name not in many + attention]
    assert json.loads(good("compare", square, "-m", MODEL, "-c", "0", "--methods", "scorecam", "--json").stdout)[
        "methods"
    ]


def test_compare_wrapped_methods(place, square):
    methods = "cam, MultiView(Compete(FullyCAM, GradCAM), scales=(1, 2)),hires*"
    document = json.loads(good("compare", square, "-m", MODEL, "-c", "0", "--methods", methods, "--json").stdout)
    assert document["methods"] == ["cam", "multiview(compete(fully))", "hirescam"]
    assert document["refused"] == []
    assert "there is no method 'typo'" in refused("compare", square, "-m", MODEL, "--methods", "MultiView(typo)")


def test_compare_names_what_cannot_work(place, square):
    spec = "timm:test_vit"
    import timm

    torch.save(timm.create_model("test_vit", pretrained=False, num_classes=3).state_dict(), "v.pt")
    arguments = (
        "compare",
        square,
        "-m",
        spec,
        "--checkpoint",
        "v.pt",
        "--num-classes",
        "3",
        "--methods",
        "cam,gradcam",
    )
    document = json.loads(good(*arguments, "--json").stdout)
    assert document["methods"] == ["gradcam"]
    assert [r["method"] for r in document["refused"]] == ["cam"]
    table = good(*arguments)
    assert "left out: cam: CAM needs a model that ends in global average pooling" in table.stderr
    assert "written: camplug_compare.png" in table.stdout
    assert "CAM needs a model" in refused(*arguments[:-1], "cam")


@pytest.mark.slow
def test_compare_without_arguments(place, demo):
    result = good("compare", "--methods", "cam,gradcam")
    assert "Egyptian cat" in result.stdout
    assert len(red_panels(place / "camplug_compare.png")) == 3


def test_compare_measures_the_maps(place, square):
    given = (
        "compare",
        square,
        "-m",
        MODEL,
        "-c",
        "0",
        "--methods",
        "gradcam,layercam,eigencam",
        "--check",
        "-o",
        "c.png",
    )
    found = json.loads(good(*given, "--json").stdout)["metrics"]
    assert list(found) == ["gradcam", "layercam", "eigencam"]
    x = read_input(create("gradcam", load_model(MODEL)), square)[1][None]
    own = load_model(MODEL)
    trust = Trust({n: create(n, own) for n in found}, ("deletion", "sparseness")).add(x, 0)
    for name, row in found.items():
        assert row["deletion"] == pytest.approx(float(trust.values(name, "deletion")[0]), abs=1e-6)
        assert row["sparseness"] == pytest.approx(float(trust.values(name, "sparseness")[0]), abs=1e-6)
    assert "deletion" in good(*given).stdout
