"""Resumable jobs that make one result per image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from camplug.errors import CamplugError, InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.free_memory import release_free_memory
from camplug.wsss.store.result_folder import ResultFolder

T = TypeVar("T")
R = TypeVar("R")

READ_AHEAD = 2  # images read ahead of, and results written behind, the current one
WINDOW = 8  # images read ahead of a batch, in batches: photographs of one size are rarely neighbours
RELEASE_EVERY = 8  # results after which freed memory is returned to the system


@dataclass
class Report:
    """Summary of a job: numbers of results made and found, bytes written, broken images with their errors."""

    made: int = 0
    found: int = 0
    bytes: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


class Mismatch(CamplugError):
    """Inputs that do not fit together for any image; ends the job."""


@dataclass(frozen=True)
class Batches(Generic[T]):
    """Way to make the results of several images together, each as if made alone.

    Attributes:
        size: maximum number of images in a batch.
        get_group: function from the input of `make_results`' `make` to a value that is equal for the images of a batch.
        make: function from the inputs of a batch to their results.
    """

    size: int
    get_group: Callable[[Any], Hashable]
    make: Callable[[Sequence[Any]], Sequence[T]]


def make_results(
    data: SegmentationData,
    folder: ResultFolder[T],
    make: Callable[[Any], T],
    *,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
    read: Callable[[int], Any] | None = None,
    get_digests: Callable[[int], Mapping[str, str]] | None = None,
    batches: Batches[T] | None = None,
) -> Report:
    """Make and save the result of every image that has none yet.

    Existing results are kept, so a stopped job can be resumed; its partly written files are removed. A result does not
    depend on the other images. Broken images are reported and skipped, in the order of the data.

    Args:
        data: images.
        folder: prepared folder of the results; see `ResultFolder.prepare`.
        make: function from an image's index, or from what `read` returns, to its result.
        shard: (r, n) selects every n-th image, starting from the r-th.
        step: callback after every image.
        read: function from an image's index to the input of `make`. It runs in a separate thread, up to two images
            ahead; results are written in another thread.
        get_digests: function from an image's index to the digests of its result's inputs; a result of other inputs is
            made again. None accepts any result.
        batches: batches; None processes images one at a time. Up to `WINDOW` batches are read ahead, and the images of
            the first one's group form a batch. A batch that fails is made one by one; if each image then succeeds, as
            when memory ran out, later batches are half as large.

    Returns:
        Summary of the job.

    Raises:
        InputError: the shard is invalid, or the folder cannot be written.
        Mismatch: raised by `make`.
        Exception: any other error at the first image, as it may not be the image's fault.
    """
    rank, world = shard
    if not 0 <= rank < world:
        raise InputError(f"shard={shard!r}; give (r, n) with r from 0 to n - 1.")
    run = _Run(data, folder, make, read, step, get_digests, batches)
    try:
        run.make_all(iter(range(rank, len(data), world)))
    finally:
        run.close()
    return run.report


@dataclass(eq=False)
class _PendingImage:
    """Image in the queue.

    Attributes:
        i: its index.
        source: its input, until the result is made; None if the result existed.
        inputs: digests of its result's inputs.
        state: the write of its result, or its error; None if the result existed.
        is_done: True if the state is known.
    """

    i: int
    source: Future[Any] | None
    inputs: Mapping[str, str] | None
    state: Future[None] | str | None = None
    is_done: bool = False

    def finish(self, state: Future[None] | str) -> None:
        """Keep the state and let the input go."""
        self.state, self.source, self.is_done = state, None, True


class _Run(Generic[T]):
    """State of `make_results`: images that are read, made and written; they leave the queue in order."""

    def __init__(  # noqa: PLR0917
        self,
        data: SegmentationData,
        folder: ResultFolder[T],
        make: Callable[[Any], T],
        read: Callable[[int], Any] | None,
        step: Callable[[Report], None],
        get_digests: Callable[[int], Mapping[str, str]] | None,
        batches: Batches[T] | None,
    ) -> None:
        self.data, self.folder, self.make, self.step, self.get_digests = data, folder, make, step, get_digests
        self.batches, self.most = batches, 1 if batches is None else batches.size
        self.report, self.leftovers = Report(), folder.find_leftovers()
        ahead = 0 if read is None else READ_AHEAD
        self.window = 1 + ahead if self.most == 1 else WINDOW * self.most
        self.behind = ahead if self.most == 1 else max(ahead, self.most)
        self.read: Callable[[int], Any] = (lambda i: i) if read is None else read
        self.reader, self.writer = (_Worker(bool(ahead)) for _ in range(2))
        self.pending: deque[_PendingImage] = deque()
        self.unwritten: deque[Future[None]] = deque()
        self.writing: deque[_PendingImage] = deque()  # done, not yet reported
        self.has_succeeded = False  # later errors are taken for the image's fault

    def make_all(self, numbers: Iterator[int]) -> None:
        """Make the missing results of images and report all of them in order."""
        while self._read_ahead(numbers):
            first = self.pending[0]
            if not first.is_done:
                group = self._find_group()
                if len(group) == 1 or not self._make_together(group):
                    self._make_alone(group)
            self.writing.append(self.pending.popleft())
            self._finish_writes(self.behind)
        self._finish_writes(0)

    def _read_ahead(self, numbers: Iterator[int]) -> bool:
        """Start reading images until the window is full; return whether an image is left."""
        while len(self.pending) < self.window and (i := next(numbers, None)) is not None:
            there, inputs = self._find_result(i)
            source = None if there else self.reader.submit(self.read, i)
            self.pending.append(_PendingImage(i, source, inputs, is_done=there))
        return bool(self.pending)

    def _find_result(self, i: int) -> tuple[bool, Mapping[str, str] | None]:
        """Return whether the result of image i exists, and the digests of its inputs if they can be read."""
        name = self.data.ids[i]
        if self.get_digests is None:
            return self.folder.has_result(name), None
        try:
            inputs = self.get_digests(i)
        except InputError:  # `make` raises the same error
            return False, None
        return self.folder.has_result(name, inputs) or self.folder.take_over(name, inputs), inputs

    def _find_group(self) -> list[_PendingImage]:
        """Return the first image and those of the window that form a batch with it; waits for their inputs."""
        first, *others = self.pending
        group, key = [first], self._get_group(first) if self.most > 1 else None
        if key is not None:
            for image in others:
                if len(group) == self.most:
                    break
                if not image.is_done and self._get_group(image) == key:
                    group.append(image)
        return group

    def _get_group(self, image: _PendingImage) -> Hashable:
        """Return the group of an image; None if its input cannot be read, which is told when its turn comes."""
        assert self.batches is not None
        assert image.source is not None
        return self.batches.get_group(image.source.result()) if image.source.exception() is None else None

    def _make_together(self, group: list[_PendingImage]) -> bool:
        """Make the results of a batch and start writing them; return whether it worked."""
        assert self.batches is not None
        try:
            results = self.batches.make([image.source.result() for image in group if image.source is not None])
        except Exception:  # the image that causes it raises it again alone
            return False
        for image, result in zip(group, results, strict=True):
            self._save(image, result)
        return True

    def _make_alone(self, group: list[_PendingImage]) -> None:
        """Make the results of images one by one and start writing them."""
        failed = False
        for image in group:
            assert image.source is not None
            try:
                result = self.make(image.source.result())
            except Mismatch:
                raise
            except Exception as error:  # custom models may raise anything
                if not isinstance(error, InputError) and not self.has_succeeded:
                    raise
                image.finish(_get_first_line(error))
                failed = True
            else:
                self._save(image, result)
        if len(group) > 1 and not failed:
            self.most = max(1, self.most // 2)

    def _save(self, image: _PendingImage, result: T) -> None:
        """Start writing a result; waits while many are being written, since they take memory."""
        self.has_succeeded = True
        write = self.writer.submit(self.folder.save, self.data.ids[image.i], result, image.inputs)
        image.finish(write)
        self.unwritten.append(write)
        while len(self.unwritten) > self.behind:
            self.unwritten.popleft().exception()  # an error is raised in order

    def _finish_writes(self, most: int) -> None:
        """Wait until at most `most` results are being written, and report the others."""
        while len(self.writing) > most:
            image = self.writing.popleft()
            name, state = self.data.ids[image.i], image.state
            if state is None:
                self.report.found += 1
            elif isinstance(state, str):
                self.report.broken.append((name, state))
            else:
                state.result()
                for part in self.leftovers.get(name, ()):  # older than the result: no longer being written
                    part.unlink(missing_ok=True)
                self.report.made += 1
                if self.report.made % RELEASE_EVERY == 0:
                    release_free_memory()
                self.report.bytes += self.folder.get_path(name).stat().st_size
            self.step(self.report)

    def close(self) -> None:
        """Finish all writes and stop reading."""
        self.reader.close(cancel=True)
        self.writer.close()


class _Worker:
    """Executor with one thread, or without: then functions run at once."""

    def __init__(self, threaded: bool) -> None:
        self.pool = ThreadPoolExecutor(1) if threaded else None

    def submit(self, function: Callable[..., R], *arguments: Any) -> Future[R]:
        """Start a function and return its future."""
        if self.pool is not None:
            return self.pool.submit(function, *arguments)
        done: Future[R] = Future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self, *, cancel: bool = False) -> None:
        """Wait for submitted functions; with `cancel`, only for the one that runs."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=cancel)


def is_passing(error: str) -> bool:
    """Return whether the error of a broken image, as in a `Report`, may not come from its files, but from memory, say.

    >>> is_passing("OutOfMemoryError: CUDA"), is_passing("'a.jpg' is damaged")
    (True, False)
    """
    return error.partition(":")[0].endswith(("Error", "Exception"))


def _get_first_line(error: Exception) -> str:
    """Return the first line of an error, with its type unless it is a `CamplugError`."""
    lines = str(error).strip().splitlines()
    kind = [] if isinstance(error, CamplugError) else [type(error).__name__]
    return ": ".join([*kind, *lines[:1]]) or type(error).__name__
