"""What an explanation says of its maps, and how it is written and read back."""

from __future__ import annotations

import base64
import json
import math
import pickle
import re
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from camplug.errors import InputError
from camplug.explain.explanation import Explanation
from camplug.show import overlay


def explanation(**changes):
    maps = torch.zeros(3, 20, 30)
    maps[0, 2:5, 3:9] = 1.0
    maps[0, 10:18, 20:30] = 0.5
    maps[1, 4, 4] = maps[1, 5, 5] = 1.0  # touch at a corner
    maps[1, 0, 29] = 0.4
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    values = {
        "image": Image.fromarray(pixels),
        "maps": maps,
        "classes": [2, 0, 1],
        "names": ["gamma", "alpha", "beta é"],
        "scores": [3.0, 1.0, 2.0],
        "logits": torch.tensor([1.0, 2.0, 3.0, -1.0]),
        "method": "fully",
        "all_names": ["alpha", "beta é", "gamma", "delta"],
    }
    return Explanation(**{**values, **changes})


def test_probabilities():
    e = explanation()
    z = sum(math.exp(v) for v in (1, 2, 3, -1))
    torch.testing.assert_close(e.probabilities(), torch.tensor([math.exp(v) / z for v in (1, 2, 3, -1)]))
    torch.testing.assert_close(
        e.probabilities(multi_label=True), torch.tensor([1 / (1 + math.exp(-v)) for v in (1, 2, 3, -1)])
    )
    with pytest.raises(InputError, match="has no logits"):
        explanation(logits=None).probabilities()


def test_top():
    e = explanation()
    p = e.probabilities().tolist()
    assert e.top(2) == [(2, "gamma", pytest.approx(p[2])), (1, "beta é", pytest.approx(p[1]))]
    assert [i for i, _, _ in e.top(99)] == [2, 1, 0, 3]
    assert explanation(all_names=None).top(1)[0][1] == "class 2"
    assert e.top(1, multi_label=True)[0][2] == pytest.approx(1 / (1 + math.exp(-3)))


def test_mask():
    e = explanation()
    assert e.mask().dtype == torch.bool
    assert e.mask().sum((1, 2)).tolist() == [18 + 80, 2, 0]
    assert e.mask(0.51).sum((1, 2)).tolist() == [18, 2, 0]
    assert e.mask(0).sum((1, 2)).tolist() == [98, 3, 0]  # an all-zero map has an empty mask


def test_boxes():
    e = explanation()
    assert e.boxes() == [[(20, 10, 30, 18), (3, 2, 9, 5)], [(4, 4, 6, 6)], []]  # largest first; right, bottom exclusive
    assert e.boxes(0.3)[1] == [(4, 4, 6, 6), (29, 0, 30, 1)]
    assert all(type(v) is int for box in e.boxes()[0] for v in box)


def test_overlay_shows_the_kth_map():
    e = explanation()
    for k in (0, 1, -1):
        assert e.overlay(k, bar=False).tobytes() == overlay(np.asarray(e.image), e.maps[k].numpy(), bar=False).tobytes()
    for k in (3, -4):
        with pytest.raises(InputError, match=f"there is no map {k}; this explanation has 3: "):
            e.overlay(k)


def test_npz_keeps_everything(tmp_path):
    e = explanation()
    e.save(tmp_path / "e.npz")
    back = Explanation.load(tmp_path / "e.npz")
    assert torch.equal(back.maps, e.maps)
    assert torch.equal(back.logits, e.logits)
    assert back.image.tobytes() == e.image.tobytes()
    assert (back.classes, back.names, back.scores) == (e.classes, e.names, e.scores)
    assert (back.method, back.all_names) == (e.method, e.all_names)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as data:
        assert data["maps"].dtype == np.float32


def test_npz_of_a_callable_and_of_no_class(tmp_path):
    e = explanation(
        maps=torch.rand(1, 20, 30), classes=[-1], names=["score"], scores=[float("nan")], logits=None, all_names=None
    )
    e.save(tmp_path / "e.npz")
    back = Explanation.load(tmp_path / "e.npz")
    assert back.logits is None
    assert back.all_names is None
    assert back.classes == [-1]
    assert math.isnan(back.scores[0])
    explanation(maps=torch.zeros(0, 20, 30), classes=[], names=[], scores=[]).save(tmp_path / "none.npz")
    none = Explanation.load(tmp_path / "none.npz")
    assert (none.classes, none.names, none.scores, none.boxes()) == ([], [], [], [])
    assert none.maps.shape == (0, 20, 30)


@pytest.mark.parametrize("ending,kind", [("png", "PNG"), ("jpg", "JPEG"), ("JPEG", "JPEG"), ("webp", "WEBP")])
def test_pictures(tmp_path, ending, kind):
    one = explanation(maps=torch.rand(1, 20, 30), classes=[2], names=["gamma"], scores=[3.0])
    path = tmp_path / f"e.{ending}"
    one.save(str(path))
    with Image.open(path) as picture:
        assert picture.format == kind
        expected = one.overlay(title="fully: gamma, 65.7% (softmax)")
        assert picture.size == expected.size
        if kind == "PNG":
            assert picture.tobytes() == expected.tobytes()


def test_several_maps_make_a_grid(tmp_path):
    e = explanation()
    e.save(tmp_path / "e.png")
    with Image.open(tmp_path / "e.png") as picture:
        assert picture.tobytes() == e.grid().tobytes()


@pytest.mark.parametrize("name", ["e.txt", "e", "e.npy", "e.gif"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"saved as \.png, \.jpg, \.webp, \.svg, \.pdf or \.npz \(numbers\)"):
        explanation().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["png", "npz"])
def test_places_that_cannot_be_written(tmp_path, ending):
    (tmp_path / "file").write_text("kept")
    (tmp_path / f"folder.{ending}").mkdir()
    for place in (tmp_path / "none" / f"e.{ending}", tmp_path / "file" / f"e.{ending}", tmp_path / f"folder.{ending}"):
        with pytest.raises(InputError, match="cannot be written") as told:
            explanation().save(place)
        assert repr(str(place)) in str(told.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", f"folder.{ending}"]


def test_load_refuses_what_is_no_explanation(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        Explanation.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    explanation().save(tmp_path / "whole.npz")
    raw = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(raw[: len(raw) // 2])
    for name in ("other.npz", "array.npy", "text.npz", "half.npz"):
        with pytest.raises(InputError, match=rf"{name}' is not an explanation saved by camplug"):
            Explanation.load(tmp_path / name)


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_load_runs_no_code(tmp_path):
    np.savez(tmp_path / "evil.npz", maps=np.array([Malicious()], dtype=object))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Malicious()))
    for name in ("evil.npz", "evil.pkl"):
        with pytest.raises(InputError, match="is not an explanation"):
            Explanation.load(tmp_path / name)


def test_maps_are_found_by_name_and_position():
    e = explanation()
    assert torch.equal(e["alpha"], e.maps[1])
    assert torch.equal(e[-1], e.maps[2])
    assert len(e) == 3
    assert np.array_equal(np.asarray(e.overlay("alpha")), np.asarray(e.overlay(1)))
    with pytest.raises(InputError, match="no map 'delta'; this explanation has 3: 'gamma', 'alpha', 'beta é'"):
        e["delta"]


def test_equality_is_of_the_content():
    assert explanation() == explanation()
    assert explanation(scores=[float("nan")] * 3) == explanation(scores=[float("nan")] * 3)
    assert explanation() != explanation(maps=torch.zeros(3, 20, 30))
    assert explanation() != explanation(evidence="negative")
    assert explanation() != "something else"


def test_a_notebook_shows_a_picture_and_a_console_one_line():
    e = explanation()
    assert repr(e) == "Explanation(fully of gamma 65.7% (softmax), alpha 8.9% (softmax), beta é 24.2% (softmax); 30x20)"
    found = re.fullmatch(r'<img src="data:image/png;base64,([^"]+)" alt="Explanation\(.*\)" style=.*>', e._repr_html_())
    with Image.open(BytesIO(base64.b64decode(found[1]))) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(e.grid()))
    assert repr(explanation(maps=torch.zeros(0, 20, 30), names=[], classes=[], scores=[])).startswith(
        "Explanation(fully of no class;"
    )


def test_a_dict_for_services():
    e = explanation(scores=[3.0, float("nan"), 2.0])
    found = json.loads(json.dumps(e.to_dict(), allow_nan=False))
    assert found["size"] == [30, 20]
    assert [row["name"] for row in found["explained"]] == ["gamma", "alpha", "beta é"]
    assert found["explained"][0]["boxes"] == [[20, 10, 30, 18], [3, 2, 9, 5]]
    assert found["explained"][1]["output"] is None
    assert found["top"][0] == {"index": 2, "name": "gamma", "probability": pytest.approx(float(e.probabilities()[2]))}
    assert explanation(logits=None).to_dict()["top"] == []


@pytest.mark.parametrize("kind", [None, "jpg", "webp"])
def test_pictures_go_into_file_objects(kind):
    buffer = BytesIO()
    explanation().save(buffer, kind=kind)
    with Image.open(buffer) as picture:
        assert picture.format == {None: "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind]
        assert picture.size == explanation().grid().size


def test_numbers_go_into_file_objects_and_come_back():
    buffer = BytesIO()
    explanation().save(buffer, kind="npz")
    buffer.seek(0)
    assert Explanation.load(buffer) == explanation()
    with pytest.raises(InputError, match="the file object"):
        explanation().save(buffer, kind="bmp")


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_vector_graphics(tmp_path, kind, start):
    explanation().save(tmp_path / f"e.{kind}", contour=0.5)
    assert (tmp_path / f"e.{kind}").read_bytes().startswith(start)


def test_the_part_outside_of_the_input_is_hatched_and_remembered(tmp_path):
    e = explanation(seen=(5.0, 0.0, 25.0, 20.0))
    assert e != explanation()
    plain, hatched = (np.asarray(one.overlay(bar=False)).astype(int) for one in (explanation(), e))
    changed = (plain != hatched).any(2)
    assert changed[:, :5].any()
    assert changed[:, 25:].any()
    assert not changed[:, 5:25].any()
    e.save(tmp_path / "e.npz")
    assert Explanation.load(tmp_path / "e.npz").seen == (5.0, 0.0, 25.0, 20.0)
