"""Answers of the web page, compared with the library's."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from square_commands import OWN, SQUARE, photo

import camplug
from camplug.app import pictures
from camplug.app.service import (
    SIDE,
    WRAPPERS,
    Choices,
    MapService,
    decode_class,
    encode_class,
    format_report,
    prepare_photo,
)
from camplug.errors import CamplugError, InputError
from camplug.plug import Against


def make_bright():
    module = {}
    exec(OWN, module)
    return module["Bright"]().eval()


@pytest.fixture(scope="module")
def service():
    model = make_bright()
    return MapService(lambda prompts: (model, {"class_names": [f"{p} class" for p in prompts] or None}))


@pytest.fixture(scope="module")
def square():
    return Image.fromarray(photo())


def test_maps_are_those_of_the_library(service, square):
    answer = service.explain(square, Choices(methods=("fully", "gradcam", "hirescam")))
    model = make_bright()
    wanted = [make(model).explain(square) for make in (camplug.FullyCAM, camplug.GradCAM, camplug.HiResCAM)]
    assert answer.explanations == wanted
    assert answer.notes == []
    assert [(c.code, c.name) for c in answer.classes] == [(str(i), name) for i, name, _ in wanted[0].top(3)]


def test_class_wrapper_and_layers_reach_the_explainer(service, square):
    choices = Choices("0", ("gradcam",), "views (scales and mirror images)", "features.0")
    wanted = camplug.MultiView(camplug.GradCAM(make_bright(), layers="features.0")).explain(square, 0)
    assert service.explain(square, choices).explanations == [wanted]
    plain = service.explain(square, Choices("2", ("saliency",), layers="features.0"))  # has no layers
    assert plain.explanations == [camplug.Saliency(make_bright()).explain(square, 2)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_explains(service, square, wrapper):
    (result,) = service.explain(square, Choices("0", ("cam",), wrapper)).explanations
    assert result.maps.shape == (1, 80, 120)
    assert result.maps[0, SQUARE[1] : SQUARE[3], SQUARE[0] : SQUARE[2]].mean() > 2 * result.maps.mean()


def test_a_method_that_does_not_fit_is_named(service, square):
    answer = service.explain(square, Choices(methods=("legrad", "cam")))
    assert [r.method for r in answer.explanations] == ["cam"]
    assert answer.notes[0].startswith("legrad is left out: ")


def test_refusals(service, square):
    with pytest.raises(InputError, match="there is no photograph yet"):
        service.explain(None, Choices())
    with pytest.raises(InputError, match="0 methods are chosen; choose 1 to"):
        service.explain(square, Choices(methods=()))
    with pytest.raises(CamplugError, match="there is no method 'import:os:path'"):
        service.explain(square, Choices(methods=("import:os:path",)))
    with pytest.raises(CamplugError, match="there is no wrapper"):
        service.explain(square, Choices(wrapper="box"))
    with pytest.raises(CamplugError, match="zebra"):
        service.explain(square, Choices("zebra"))


def test_a_broken_file_is_named_without_its_place(service, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^the photograph is not an image that Pillow can read"):
        service.explain(str(tmp_path / "broken.png"), Choices())


def test_large_photographs_are_scaled_and_named():
    small, notes = prepare_photo(Image.new("RGB", (2 * SIDE, SIDE)))
    assert small.size == (SIDE, SIDE // 2)
    assert notes == [f"the photograph of {2 * SIDE}x{SIDE} is scaled to {SIDE}x{SIDE // 2} pixels."]
    exact = Image.new("RGB", (SIDE, 3))
    assert prepare_photo(exact)[0].size == exact.size


def test_classes_as_text():
    for index in (0, 17, Against(0), Against(4)):
        decoded = decode_class(encode_class(index))
        assert (type(decoded), decoded) == (type(index), index)
    assert decode_class("") is None


def test_a_class_may_be_typed_by_its_name(service, square):
    named, numbered = (service.explain(square, Choices(cls, ("cam",))) for cls in ("dark spot", "2"))
    assert named.explanations == numbered.explanations


def test_prompts_make_classifiers_once():
    loaded = []

    def load(prompts):
        loaded.append(prompts)
        return make_bright(), {"class_names": [*prompts, "none"]}

    service = MapService(load, needs_prompts=True)
    assert loaded == []
    square = Image.fromarray(photo())
    with pytest.raises(InputError, match="no classes of its own"):
        service.explain(square, Choices())
    for _ in range(2):
        answer = service.explain(square, Choices("0", ("cam",), prompts=("a spot", "ground")))
        assert answer.explanations[0].names == ["a spot"]
    assert loaded == [("a spot", "ground")]


def test_check_is_that_of_the_library(service, square):
    report = service.check(square, Choices("0", ("cam", "fully")))
    wanted = camplug.trust.check(camplug.CAM(make_bright()), square, 0)
    assert report.as_dict() == wanted.as_dict()
    text = format_report(report)
    assert text.startswith(f"**{wanted.verdict}**: cam of bright spot: ")
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        *(f"- warning: {w}" for w in wanted.warnings),
        *(f"- {r}" for r in wanted.reasons),
    ]


def test_multi_label_turns_to_sigmoids(square):
    model = make_bright()
    answer = MapService(lambda prompts: (model, {}), multi_label=True).explain(square, Choices(methods=("cam",)))
    logits = answer.explanations[0].logits
    assert [c.probability for c in answer.classes] == sorted(logits.sigmoid().tolist(), reverse=True)


def test_mask_labels_and_links(service, square):
    (result,) = service.explain(square, Choices("0", ("cam",))).explanations
    labels = pictures.make_label_picture(result, 0.4)
    assert (np.asarray(labels) == result.mask(0.4)[0].numpy()).all()
    assert labels.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    for boxes in (False, True):
        overlay = pictures.draw_mask(result, 0.4, boxes)
        wanted = result.overlay(contour=0.4, boxes=result.boxes(0.4)[0] if boxes else (), bar=False)
        assert (np.asarray(overlay) == np.asarray(wanted)).all()
        links = pictures.make_download_links(result, 0.4, boxes)
        assert re.findall(r'download="([^"]+)"', links) == ["cam_bright_spot_overlay.png", "cam_bright_spot_labels.png"]
        saved = [Image.open(BytesIO(base64.b64decode(d))) for d in re.findall(r'base64,([^"]+)"', links)]
        assert (np.asarray(saved[0]) == np.asarray(wanted)).all()
        assert saved[1].mode == "P"
        assert (np.asarray(saved[1]) == np.asarray(labels)).all()


def test_names_in_links_are_escaped():
    fake = SimpleNamespace(
        method="m", names=['<b>"x"'], mask=lambda t: torch.zeros(1, 2, 2), overlay=lambda **o: Image.new("RGB", (2, 2))
    )
    assert 'download="m__b_x_overlay.png"' in pictures.make_download_links(fake, 0.5, False)
