"""Jobs in batches: who is made with whom, bounded reading, and errors that hit the image alone that causes them."""

from __future__ import annotations

import threading

import pytest
from texts import Images, prepared

from camplug.errors import InputError
from camplug.wsss.store.jobs import WINDOW, Batches, Mismatch, make_results

GROUPS = "xxyxzxyyxx"  # of image 0, 1, ...
DATA = Images(*(f"{i}{group}" for i, group in enumerate(GROUPS)))


class Maker:
    """Makes texts from numbers, at most `most` at once, and notes who was made with whom."""

    def __init__(self, bad=(), most=99):
        self.bad, self.most, self.together, self.alone = bad, most, [], []

    def make(self, numbers):
        self.together.append(list(numbers))
        if len(numbers) > self.most:
            raise RuntimeError("out of memory")
        return [self.check(i) for i in numbers]

    def make_one(self, i):
        self.alone.append(i)
        return self.check(i)

    def check(self, i):
        if i in self.bad:
            raise ValueError(f"image {i}")
        return f"result {i}"

    def run(self, folder, size=4, data=DATA, **options):
        options.setdefault("read", lambda i: i)
        batches = Batches(size, lambda i: GROUPS[i % len(GROUPS)], self.make)
        return make_results(data, folder, self.make_one, batches=batches, **options)


def results(folder):
    return {name: folder.load(name) for name in DATA.ids if folder.is_whole(name)}


def test_images_of_one_group_are_made_together_and_reported_in_order(tmp_path):
    folder, maker, seen = prepared(tmp_path / "out"), Maker(), []
    report = maker.run(folder, step=lambda r: seen.append((r.made, r.found)))
    assert (maker.together, maker.alone) == ([[0, 1, 3, 5], [2, 6, 7], [8, 9]], [4])
    assert results(folder) == {name: f"result {i}" for i, name in enumerate(DATA.ids)}
    assert seen == [(i, 0) for i in range(1, 11)]
    assert report.bytes == sum(folder.get_path(name).stat().st_size for name in DATA.ids)
    for i in (1, 8):
        folder.get_path(DATA.ids[i]).unlink()
    again, seen[:] = Maker(), []
    again.run(folder, step=lambda r: seen.append((r.made, r.found)))
    assert (again.together, again.alone) == ([[1, 8]], [])
    assert seen == [(0, 1), *((1, n) for n in range(1, 8)), (2, 7), (2, 8)]


def test_a_batch_of_one_is_no_batch(tmp_path):
    maker = Maker()
    maker.run(prepared(tmp_path / "out"), size=1)
    assert (maker.together, maker.alone) == ([], list(range(10)))


def test_images_of_the_window_are_read_and_no_more(tmp_path):
    read, most, made = [], [], []
    data = Images(*map(str, range(70)))

    def load(i):
        read.append(i)
        return i

    def step(report):
        made.append(report.made)
        most.append(len(read) - len(made))

    Maker().run(prepared(tmp_path / "out"), size=2, data=data, read=load, step=step)
    assert read == list(range(70))
    assert len(made) == 70
    assert max(most) <= 2 * WINDOW + 2  # read ahead, and written behind


def test_an_error_hits_the_image_that_causes_it(tmp_path):
    def load(i):
        if i == 6:
            raise InputError("it is damaged.")
        return i

    folder, maker = prepared(tmp_path / "out"), Maker(bad=(3, 8))
    report = maker.run(folder, read=load)
    assert report.broken == [(DATA.ids[3], "ValueError: image 3"), (DATA.ids[6], "it is damaged."),
                             (DATA.ids[8], "ValueError: image 8")]  # fmt: skip
    assert maker.together == [[0, 1, 3, 5], [2, 7], [8, 9]]
    assert maker.alone == [0, 1, 3, 5, 4, 8, 9]
    assert list(results(folder)) == [DATA.ids[i] for i in (0, 1, 2, 4, 5, 7, 9)]


def test_batches_that_do_not_fit_become_smaller(tmp_path):
    folder, maker = prepared(tmp_path / "out"), Maker(most=2)
    assert maker.run(folder).broken == []
    assert maker.together == [[0, 1, 3, 5], [2, 6], [8, 9]]  # four were too many
    assert len(results(folder)) == 10


def test_what_ends_a_job_ends_it_in_batches_too(tmp_path):
    with pytest.raises(ValueError, match="image 0"):
        Maker(bad=(0, 1)).run(prepared(tmp_path / "a"))
    folder, maker = prepared(tmp_path / "b"), Maker()
    make = maker.check

    def differs(i):
        if i == 7:
            raise Mismatch("other classes")
        return make(i)

    maker.check = differs
    with pytest.raises(Mismatch, match="other classes"):
        maker.run(folder)
    assert list(results(folder)) == [DATA.ids[i] for i in (0, 1, 2, 3, 5, 6)]  # made before it


def test_a_stopped_job_keeps_its_batches_and_reads_no_further(tmp_path):
    folder, maker, others = prepared(tmp_path / "out"), Maker(), set(threading.enumerate())
    make = maker.make

    def stops(numbers):
        if maker.together:
            raise KeyboardInterrupt
        return make(numbers)

    maker.make = stops
    with pytest.raises(KeyboardInterrupt):
        maker.run(folder)
    assert list(results(folder)) == [DATA.ids[i] for i in (0, 1, 3, 5)]
    assert not [t for t in set(threading.enumerate()) - others if "ThreadPool" in t.name]
