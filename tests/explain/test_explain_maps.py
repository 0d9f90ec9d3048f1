"""Maps of `explain` as the explainer scales them, their warnings, and maps without an explanation."""

from __future__ import annotations

import pytest
import torch
from bright_squares import BRIGHT, DARK, KEPT, NEITHER, Bright, grad_cam, photo
from PIL import Image
from torchvision import transforms as T

from camplug import GradCAM
from camplug.explain.photographs import compute_maps_on_photo
from camplug.models import preprocess as preprocess_module


@pytest.mark.parametrize("normalize", ["max", "minmax", None])
def test_maps_are_scaled_as_the_explainer_says(normalize):
    result = grad_cam(normalize=normalize).explain(photo(), [BRIGHT, DARK])
    assert result.maps.min() == 0
    assert (result.maps.amax((1, 2)) == 1).all() == (normalize is not None)
    torch.testing.assert_close(result.normalized_maps(), grad_cam().explain(photo(), [BRIGHT, DARK]).maps)
    assert torch.equal(result.mask(), grad_cam().explain(photo(), [BRIGHT, DARK]).mask())


def test_no_positive_evidence_is_told_of_with_the_users_own_line():
    with pytest.warns(UserWarning, match="no positive evidence for 'neither': its gradcam map is all 0") as told:
        result = grad_cam().explain(photo(), [BRIGHT, NEITHER])
    assert len(told) == 1
    assert told[0].filename == __file__
    assert (result.maps[1] == 0).all()
    assert result.maps[0].max() == 1


def test_the_defaults_are_told_of_once(monkeypatch):
    monkeypatch.setattr(preprocess_module, "_warned", False)
    explainer = GradCAM(Bright(), "features")
    with pytest.warns(UserWarning, match="the model does not say how it wants its images") as told:
        results = explainer.explain([photo(), photo()], DARK)
    assert len(results) == 2
    assert len(told) == 1


def test_the_model_and_its_mode_are_untouched():
    model = Bright().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grad_cam(model=model).explain(photo(), "bright")
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model._forward_hooks
    assert not model.features._forward_hooks


# ---- maps alone


@pytest.mark.parametrize("normalize", ["max", "minmax", None])
def test_maps_on_a_photograph_are_made_at_its_size(normalize):
    explainer, source = grad_cam(normalize=normalize), Image.fromarray(photo())
    maps, logits = compute_maps_on_photo(explainer, source, [DARK, BRIGHT])
    x, _ = KEPT(source)
    want = explainer.run(x[None], [[DARK, BRIGHT]], (80, 120))
    assert torch.equal(maps, want.maps[0])
    torch.testing.assert_close(logits, want.logits[0])
    assert maps.dtype == torch.float32
    one = explainer.explain(source, [DARK, BRIGHT])  # the same numbers
    assert torch.equal(one.maps, maps)
    assert torch.equal(one.normalized_maps(), maps / maps.amax((1, 2), keepdim=True))
    assert (float(maps.max()) == 1) == (normalize is not None)
    assert torch.equal(one.mask(0.4), one.normalized_maps() >= 0.4)


def test_maps_on_a_cropped_photograph_are_those_of_an_explanation():
    crop = T.Compose([T.Resize(64), T.CenterCrop(48), T.ToTensor()])
    explainer, source = grad_cam(crop), Image.fromarray(photo(square=(50, 30, 74, 54)))
    maps, logits = compute_maps_on_photo(explainer, source, [BRIGHT, DARK])
    want = explainer.explain(source, [BRIGHT, DARK])
    assert torch.equal(maps, want.maps)
    assert torch.equal(logits, want.logits)
    assert maps[:, :, :20].amax() == 0  # outside of the crop


def test_no_maps_on_a_photograph():
    maps, logits = compute_maps_on_photo(grad_cam(), Image.fromarray(photo()), [])
    assert maps.shape == (0, 80, 120)
    assert logits.shape == (3,)
