"""Seeds in batches: equal to seeds made one by one, in fewer passes, also through wrappers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from recipes import tiny
from tiny_seeds import CONFIG, Tiny, write_photos

import camplug
from camplug.errors import InputError
from camplug.explain.photo_inputs import compute_maps_on_inputs, preprocess_photo
from camplug.images.preprocess import Preprocess
from camplug.wsss.recipe import list_stages
from camplug.wsss.seeds import SeedFolder, SeedSettings, choose_batch, make_seeds, prepare_seeds

SIZES = ((60, 44), (44, 60), (60, 44), (62, 40))
LABELS = {f"{i}.png": ["abcdef"[j] for j in range(6) if (i * 5 + 3) >> j & 1][:2] for i in range(8)}
SQUARE = Preprocess((40, 40), CONFIG["mean"], CONFIG["std"], keep_aspect=False)  # one input size for all photographs
METHODS = [
    "CAM",
    "FullyCAM",
    "ScoreCAM('features.0')",
    "MultiView(FullyCAM, (0.5, 1))",
    "Compete(MultiView(FullyCAM, (1, 1.5), combine='max'), CAM)",
    "Propagate(CAM, strides=(1,), zoom=1, layers='features.0', max_positions=64)",
    "SplitUnite(GradCAM('features.2'), smallest=16)",
    "IterativeErasing(GradCAM('features.2'))",
]


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Tiny().eval()


@pytest.fixture
def data(tmp_path):
    return write_photos(tmp_path / "data", LABELS, SIZES)


@pytest.mark.parametrize("text", METHODS)
def test_maps_of_a_batch_are_those_of_each_photograph(model, data, text, device):
    """In float64, as `Compete` enlarges rounding: it divides by values down to 0.001. Maps leave in float32."""
    explainer = camplug.create(text, model.double().to(device), preprocess=SQUARE)
    items = [preprocess_photo(explainer, data.photo(i)) for i in range(len(data))]
    classes = [data.labels(i) for i in range(len(data))]
    together, logits = compute_maps_on_inputs(explainer, items, classes)
    assert [tuple(m.shape) for m in together] == [
        (len(row), *item.size) for row, item in zip(classes, items, strict=True)
    ]
    for item, row, maps, values in zip(items, classes, together, logits, strict=True):
        (alone,), own = compute_maps_on_inputs(explainer, [item], [row])
        torch.testing.assert_close(maps, alone, atol=2**-23, rtol=0)
        torch.testing.assert_close(values, own[0], atol=0, rtol=2**-23)


@pytest.mark.parametrize("predicted", [None, 0.18])
@pytest.mark.parametrize("preprocess", [None, SQUARE])
def test_seeds_in_batches_are_those_made_one_by_one(tmp_path, model, data, predicted, preprocess):
    explainer, runs = camplug.GradCAM(model, "features.2", preprocess=preprocess), {}
    folders = {batch: SeedFolder(tmp_path / str(batch)) for batch in (1, 3)}
    for batch, folder in folders.items():
        make_seeds(explainer, data, SeedFolder(tmp_path / f"first {batch}"), batch=batch)  # what is found out once
        model.runs = 0
        report = make_seeds(explainer, data, folder, batch=batch, predicted=predicted)
        assert (report.made, report.broken) == (8, [])
        runs[batch] = model.runs
    assert runs[3] < runs[1]
    for name in data.ids:
        alone, together = (folder.load(name) for folder in folders.values())
        assert (alone.classes, alone.size) == (together.classes, together.size)
        assert np.abs(alone.maps.astype(int) - together.maps).max(initial=0) <= 1  # where rounding is on an edge
        np.testing.assert_allclose(alone.logits, together.logits, atol=1e-6)


def test_a_broken_photograph_and_one_that_the_model_refuses(tmp_path, model, data):
    forward, bright = model.forward, data.photo(2)

    def refuses(x):
        if (x[:, :, :4, :4].mean((1, 2, 3)) > 1.9).any():
            raise RuntimeError("too bright")
        return forward(x)

    model.forward = refuses
    bright.paste((255, 255, 255), (0, 0, *bright.size))
    bright.save(tmp_path / "data" / "images" / "2.png")
    (tmp_path / "data" / "images" / "5.png").write_bytes(b"\x89PNG")
    report = make_seeds(camplug.CAM(model, preprocess=SQUARE), data, SeedFolder(tmp_path / "seeds"), batch=8)
    assert report.made == 6
    assert [name for name, _ in report.broken] == ["2", "5"]
    assert report.broken[0][1] == "RuntimeError: too bright"


def test_the_batch_is_no_part_of_the_identity(tmp_path, model, data):
    for batch, made in ((3, 8), (None, 0)):
        settings = SeedSettings("CAM", batch=batch)
        folder = SeedFolder(tmp_path / "seeds")
        make = prepare_seeds(camplug.CAM(model), settings, data, partial(folder.prepare, overwrite=False), network={})
        assert make().made == made


def test_the_batch_of_a_recipe_reaches_its_stage_and_no_hash():
    recipe = tiny(seeds={**tiny().text["seeds"], "batch": 5})
    parts = {name: part.open() for name, part in recipe.data.items()}
    stages = {stage.name: stage for stage in list_stages(recipe, parts)}
    assert stages["seeds train"].tuning == {"batch": 5}
    assert "batch" not in stages["seeds train"].settings


def test_how_many(model, device):
    assert choose_batch(model.to(device), None) == (8 if device.type == "cuda" else 1)
    assert choose_batch(model, 5) == 5
    with pytest.raises(InputError, match="batch=0; give at least 1"):
        choose_batch(model, 0)
    with pytest.raises(InputError, match="batch=-1; give at least 1"):
        SeedSettings(batch=-1)
