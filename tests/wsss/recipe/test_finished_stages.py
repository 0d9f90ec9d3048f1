"""Stages that are run again, and published networks that stay."""

from __future__ import annotations

from types import SimpleNamespace

from camplug.wsss.recipe.run import _is_finished, _remove_published


def test_stages_with_errors_that_may_pass_are_not_finished():
    memory, damaged = ({"image": "a", "error": text} for text in ("OutOfMemoryError: CUDA", "'a.jpg' is damaged"))
    assert not _is_finished(None)
    assert _is_finished({"made": 3, "broken": []})
    assert _is_finished({"made": 3, "broken": [damaged]})
    assert not _is_finished({"made": 3, "broken": [damaged, memory]})
    assert _is_finished({"broken": [memory]})  # a training


def test_only_networks_of_earlier_runs_are_removed(tmp_path):
    made = tmp_path / "cache" / "classifier-1"
    made.mkdir(parents=True)
    (made / "classifier.pt").write_bytes(b"made here")
    cache = SimpleNamespace(root=tmp_path / "cache")
    mine, read, published = tmp_path / "mine.pt", tmp_path / "read.pt", tmp_path / "published.pt"
    mine.write_bytes(b"of others")
    for file in (read, published):
        file.write_bytes(b"made here")
    graph = SimpleNamespace(stages=[SimpleNamespace(files=(str(read),))])
    for file in (mine, read, published, tmp_path / "missing.pt"):
        _remove_published(file, graph, cache)
    assert (mine.exists(), read.exists(), published.exists()) == (True, True, False)
