"""Jobs of one result per image: each image once, in order, also after errors, in shares and with reading ahead."""

from __future__ import annotations

import threading

import pytest
from texts import Images, prepared

from camplug.errors import InputError
from camplug.wsss.store.jobs import Mismatch, make_results

DATA = Images("a", "b", "in/c", "d", "e")


def name(i):
    return f"result {i}"


def results(folder):
    return {n: folder.load(n) for n in DATA.ids if folder.is_whole(n)}


def test_each_image_has_its_result_and_the_second_run_makes_none(tmp_path):
    folder, seen = prepared(tmp_path / "out"), []
    report = make_results(DATA, folder, name, step=lambda r: seen.append((r.made, r.found)))
    assert results(folder) == {"a": "result 0", "b": "result 1", "in/c": "result 2", "d": "result 3", "e": "result 4"}
    assert (report.made, report.found, report.broken) == (5, 0, [])
    assert report.bytes == sum(folder.get_path(n).stat().st_size for n in DATA.ids)
    assert seen == [(i, 0) for i in range(1, 6)]
    folder.get_path("b").unlink()
    again = make_results(DATA, folder, lambda i: f"other {i}")
    assert (again.made, again.found) == (1, 4)
    assert results(folder)["b"] == "other 1"
    assert results(folder)["a"] == "result 0"


def test_shares_make_every_result_once(tmp_path):
    folder, made = prepared(tmp_path / "out"), []
    for rank in (1, 0):
        report = make_results(DATA, folder, lambda i: made.append(i) or name(i), shard=(rank, 2))
        assert report.made == (2 if rank else 3)
    assert made == [1, 3, 0, 2, 4]
    for shard in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match=r"give \(r, n\) with r from 0 to n - 1"):
            make_results(DATA, folder, name, shard=shard)


def test_an_image_is_read_at_most_two_ahead_in_another_thread(tmp_path):
    read, made, most = [], [], []

    def load(i):
        assert threading.current_thread() is not threading.main_thread()
        read.append(i)
        return i * 10

    def make(value):
        assert threading.current_thread() is threading.main_thread()
        made.append(value)
        most.append(max(read) - len(made) + 1)
        return str(value)

    folder = prepared(tmp_path / "out")
    make_results(DATA, folder, make, read=load)
    assert read == [0, 1, 2, 3, 4]
    assert made == [0, 10, 20, 30, 40]
    assert max(most) <= 2
    assert list(results(folder).values()) == ["0", "10", "20", "30", "40"]


@pytest.mark.parametrize("read", [None, lambda i: i])
def test_errors_of_images_are_listed(tmp_path, read):
    def fails(i):
        if i in (1, 4):
            raise InputError("it is damaged.") if i == 1 else ValueError("two\nlines")
        return name(i)

    folder = prepared(tmp_path / "out")
    report = make_results(DATA, folder, fails, read=read)
    assert report.broken == [("b", "it is damaged."), ("e", "ValueError: two")]
    assert report.made == 3
    report = make_results(DATA, folder, name, read=read)
    assert (report.made, report.found, report.broken) == (2, 3, [])


def test_an_error_at_the_first_image_and_a_mismatch_end_the_job(tmp_path):
    def fails(i):
        raise ValueError("of the model") if i == 0 else AssertionError

    with pytest.raises(ValueError, match="of the model"):
        make_results(DATA, prepared(tmp_path / "a"), fails)

    def differs(i):
        if i == 2:
            raise Mismatch("other classes")
        return name(i)

    folder = prepared(tmp_path / "b")
    with pytest.raises(Mismatch, match="other classes"):
        make_results(DATA, folder, differs)
    assert results(folder) == {"a": "result 0", "b": "result 1"}


def test_results_of_other_inputs_are_made_again(tmp_path):
    folder, digests = prepared(tmp_path / "out"), dict.fromkeys(range(5), "one")

    def digests_of(i):
        if digests[i] is None:
            raise InputError("it is gone.")
        return {"photograph": digests[i]}

    make_results(DATA, folder, name, get_digests=digests_of)
    digests |= {3: "two", 4: None}
    report = make_results(DATA, folder, lambda i: f"new {i}", get_digests=digests_of)
    assert (report.made, report.found) == (2, 3)
    assert (results(folder)["d"], results(folder)["in/c"]) == ("new 3", "result 2")


def test_parts_of_a_killed_run_go_with_the_result(tmp_path):
    folder = prepared(tmp_path / "out")
    folder.path.joinpath("in").mkdir()
    parts = [folder.path / f"{n}.txt.4711.part" for n in ("a", "in/c", "x")]
    for part in parts:
        part.write_text("half")
    assert folder.find_leftovers() == {"a": parts[:1], "in/c": parts[1:2], "x": parts[2:]}
    make_results(DATA, folder, name)
    assert [part.exists() for part in parts] == [False, False, True]
