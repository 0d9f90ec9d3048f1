"""Folders of results: their settings and what differs, results of other inputs, and those taken over."""

from __future__ import annotations

import json
import os

import pytest
from texts import Texts, prepared

from camplug.errors import InputError
from camplug.wsss.store.result_folder import link_or_copy
from camplug.wsss.store.settings_folder import get_setting_name


def filled(path, result="text", **settings):
    folder = prepared(path, **settings)
    folder.save("a", result, {"photograph": "1"})
    return folder


def test_settings_are_written_with_the_first_result(tmp_path):
    folder = prepared(tmp_path / "out", scale=1)
    assert list(folder.path.iterdir()) == []
    folder.prepare({"scale": 2})  # nothing is there yet
    folder.save("a", "text")
    assert json.loads((folder.path / "settings.json").read_text()) == {"scale": 2}
    assert Texts(folder.path).read_settings() == {"scale": 2}
    with pytest.raises(InputError, match=r"is no folder of texts: it has no settings\.json"):
        Texts(tmp_path).read_settings()


@pytest.mark.parametrize(
    "now, says",
    [
        ({"walk": {"beta": 8, "weights": "x"}, "crf": None}, r"walk.beta differs (walk.beta: 10 there, 8 now)"),
        ({"walk": {"beta": 10, "weights": "y"}, "crf": None}, "the weights of --weights differ"),
        ({"walk": None, "crf": None}, "walk.beta, the weights of --weights differ (walk.beta: 10 there, None now)"),
        (
            {"walk": {"beta": 10, "weights": "x"}, "crf": "irn"},
            "crf differs (crf: None there, 'irn' now)",
        ),
    ],
)
def test_other_settings_are_refused_and_named(tmp_path, now, says):
    filled(tmp_path / "out", walk={"beta": 10, "weights": "x"}, crf=None)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path / "out", **now)
    assert f"holds texts of other settings: {says}; --overwrite makes it anew" in str(caught.value)


def test_overwriting_removes_results_of_other_settings_at_the_first_save(tmp_path):
    filled(tmp_path / "out", scale=1).save("b", "old")
    folder = Texts(tmp_path / "out")
    folder.prepare({"scale": 2}, overwrite=True)
    assert folder.is_replaced
    assert folder.is_whole("b")
    folder.save("a", "new")
    assert not folder.is_replaced
    assert not folder.is_whole("b")
    assert (folder.load("a"), folder.read_settings()) == ("new", {"scale": 2})


def test_a_result_belongs_to_its_inputs_and_settings(tmp_path):
    folder = filled(tmp_path / "out", scale=1)
    assert folder.has_result("a")
    assert folder.has_result("a", {"photograph": "1"})
    assert not folder.has_result("a", {"photograph": "2"})
    assert not folder.has_result("a", {"photograph": "1", "labels": "1"})
    assert not folder.has_result("b")
    folder.get_path("a").write_text("no digests\ntext")
    assert folder.read_digests("a") == {}
    assert not folder.has_result("a", {"photograph": "1"})


def test_results_are_taken_over_from_folders_of_equal_settings(tmp_path):
    other, apart = filled(tmp_path / "other", "theirs", scale=1), filled(tmp_path / "apart", "wrong", scale=2)
    folder = prepared(tmp_path / "out", scale=1)
    folder.others = (apart, other)
    assert not folder.take_over("a", {"photograph": "2"})
    assert not folder.take_over("b", {"photograph": "1"})
    assert folder.take_over("a", {"photograph": "1"})
    assert folder.load("a") == "theirs"
    assert folder.compute_digest("a") == other.compute_digest("a") != apart.compute_digest("a")


def test_a_file_is_linked_or_copied(tmp_path, monkeypatch):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("one")
    target.write_text("old")
    link_or_copy(source, target)
    assert target.samefile(source)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    link_or_copy(source, tmp_path / "c")
    assert (tmp_path / "c").read_text() == "one"
    assert not (tmp_path / "c").samefile(source)
    with pytest.raises(InputError, match=r"none.d' cannot be written"):
        link_or_copy(source, tmp_path / "none" / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_names_of_settings():
    names = ("images.seeds", "network.start", "seeds.backbone.weights", "seeds.explainer", "beta")
    assert [get_setting_name(name) for name in names] == [
        "the seeds", "the weights of --model", "the weights of the seeds' model", "seeds.explainer", "beta",
    ]  # fmt: skip
