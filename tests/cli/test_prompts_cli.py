"""Texts as classes on the command line, and models of Hugging Face from folders."""

from __future__ import annotations

import json

import hosts
import numpy as np
import pytest
import torch
from commands import good, refused
from PIL import Image

import camplug
from camplug.wsss.seeds import SeedFolder

WORDS = ["a", "dog", "cat", "grass"]


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "clip").mkdir()
    hosts.make_host("hf CLIPModel").save_pretrained(tmp_path / "clip")
    hosts.save_word_tokenizer(tmp_path / "clip", WORDS)
    hosts.save_processor(tmp_path / "clip", size=64, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    return tmp_path


def test_explain_and_seeds_with_prompts(folder):
    model, photo = f"hf:{folder / 'clip'}", folder / "photos" / "a.png"
    options = ["--model", model, "--prompts", "dog,cat", "--background-prompts", "grass", "--template", "a {}"]
    out = str(folder / "a.npz")
    result = good("explain", str(photo), *options, "--class", "cat", "--method", "gradcam", "--out", out, "--json")
    entry = json.loads(result.stdout)["images"][0]
    assert [e["name"] for e in entry["explained"]] == ["cat"]
    loaded = camplug.load_model(model)
    prompts = camplug.Prompts(loaded, ["dog", "cat"], background=["grass"], templates=["a {}"]).eval()
    expected = camplug.GradCAM(prompts).explain(photo, "cat")
    torch.testing.assert_close(camplug.Explanation.load(out).maps, expected.maps, rtol=1e-3, atol=1e-3)
    good("seeds", "--data", f"photos:{folder / 'photos'}", *options, "--labels", "predicted", "--probability", "0",
         "--explainer", "gradcam", "--out", str(folder / "seeds"))  # fmt: skip
    settings = SeedFolder(folder / "seeds").read_settings()
    assert tuple(settings["classes"]) == ("dog", "cat", "grass")


def test_refused_without_prompts(folder):
    photo, model = str(folder / "photos" / "a.png"), f"hf:{folder / 'clip'}"
    assert "this CLIPModel has no classes of its own; give them as texts" in refused("explain", photo, "--model", model)
    says = refused("explain", photo, "--background-prompts", "grass")
    assert "--background-prompts and --template belong to prompts" in says


def test_visitors_of_the_web_page_give_texts_of_their_own(folder):
    from camplug.app.service import Choices
    from camplug.cli.common import PromptOptions
    from camplug.cli.explanations import ExplainerOptions
    from camplug.cli.web_app import make_service

    model, photo = f"hf:{folder / 'clip'}", folder / "photos" / "a.png"
    loaded = camplug.load_model(model)
    service = make_service(ExplainerOptions(model=model))
    with pytest.raises(camplug.InputError, match="this model has no classes of its own"):
        service.explain(photo, Choices())
    answer = service.explain(photo, Choices("cat", ("gradcam",), prompts=("dog", "cat")))
    wanted = camplug.GradCAM(camplug.Prompts(loaded, ["dog", "cat"]).eval()).explain(photo, "cat")
    assert answer.explanations == [wanted]
    given = PromptOptions(("dog", "cat"), ("grass",), "a {}")
    answer = make_service(ExplainerOptions(model=model, prompt_options=given)).explain(
        photo, Choices("0", ("gradcam",))
    )
    prompts = camplug.Prompts(loaded, ["dog", "cat"], background=["grass"], templates=["a {}"]).eval()
    assert answer.explanations == [camplug.GradCAM(prompts).explain(photo, 0)]
