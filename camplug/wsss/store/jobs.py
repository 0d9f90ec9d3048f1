"""Resumable jobs that make one result per image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from camplug.errors import CamplugError, InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.free_memory import release_free_memory
from camplug.wsss.store.result_folder import ResultFolder

T = TypeVar("T")
R = TypeVar("R")

READ_AHEAD = 2  # images read ahead of, and results written behind, the current one
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


def make_results(
    data: SegmentationData,
    folder: ResultFolder[T],
    make: Callable[[Any], T],
    *,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
    read: Callable[[int], Any] | None = None,
    get_digests: Callable[[int], Mapping[str, str]] | None = None,
) -> Report:
    """Make and save the result of every image that has none yet.

    Existing results are kept, so a stopped job can be resumed; its partly written files are removed. Images are
    processed one at a time: a result does not depend on the others. Broken images are reported and skipped.

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
    run = _Run(data, folder, make, read, step, get_digests)
    numbers = iter(range(rank, len(data), world))
    try:
        while (image := run.next_image(numbers)) is not None:
            run.make_result(*image)
        run.finish_writes(0)
    finally:
        run.close()
    return run.report


class _PendingImage(NamedTuple):
    """Image in the queue: its index, its input (None: the result exists), digests of its inputs."""

    i: int
    source: Future[Any] | None
    inputs: Mapping[str, str] | None


class _Run(Generic[T]):
    """State of `make_results`: queues of images being read and results being written, in order."""

    def __init__(  # noqa: PLR0917
        self,
        data: SegmentationData,
        folder: ResultFolder[T],
        make: Callable[[Any], T],
        read: Callable[[int], Any] | None,
        step: Callable[[Report], None],
        get_digests: Callable[[int], Mapping[str, str]] | None,
    ) -> None:
        self.data, self.folder, self.make, self.step, self.get_digests = data, folder, make, step, get_digests
        self.report, self.leftovers = Report(), folder.find_leftovers()
        self.ahead = 0 if read is None else READ_AHEAD
        self.read: Callable[[int], Any] = (lambda i: i) if read is None else read
        self.reader, self.writer = (_Worker(bool(self.ahead)) for _ in range(2))
        self.pending: deque[_PendingImage] = deque()
        self.writing: deque[tuple[str, Future[None] | str | None]] = deque()  # name and the write, the error, or None
        self.has_succeeded = False  # later errors are taken for the image's fault

    def next_image(self, numbers: Iterator[int]) -> _PendingImage | None:
        """Return the next image and start reading those after it."""
        while len(self.pending) <= self.ahead and (i := next(numbers, None)) is not None:
            there, inputs = self._find_result(i)
            self.pending.append(_PendingImage(i, None if there else self.reader.submit(self.read, i), inputs))
        return self.pending.popleft() if self.pending else None

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

    def make_result(self, i: int, source: Future[Any] | None, inputs: Mapping[str, str] | None) -> None:
        """Make an image's result and start writing it."""
        name = self.data.ids[i]
        state: Future[None] | str | None = None
        try:
            if source is not None:
                result = self.make(source.result())
        except Mismatch:
            raise
        except Exception as error:  # custom models may raise anything
            if not isinstance(error, InputError) and not self.has_succeeded:
                raise
            state = _get_first_line(error)
        else:
            self.has_succeeded = True
            if source is not None:
                state = self.writer.submit(self.folder.save, name, result, inputs)
        self.writing.append((name, state))
        self.finish_writes(self.ahead)

    def finish_writes(self, most: int) -> None:
        """Wait until at most `most` results are being written, and report the others."""
        while len(self.writing) > most:
            name, state = self.writing.popleft()
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
        self.reader.close()
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

    def close(self) -> None:
        """Wait for submitted functions."""
        if self.pool is not None:
            self.pool.shutdown(wait=True)


def _get_first_line(error: Exception) -> str:
    """Return the first line of an error, with its type unless it is a `CamplugError`."""
    lines = str(error).strip().splitlines()
    kind = [] if isinstance(error, CamplugError) else [type(error).__name__]
    return ": ".join([*kind, *lines[:1]]) or type(error).__name__
