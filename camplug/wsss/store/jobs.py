"""One result per image of a data set: resumable, in shares over processes, past broken images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

from camplug.errors import CamplugError, InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.result_folder import ResultFolder

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # images that are read before, and written behind, the one that is made
TIMEOUT = timedelta(days=30)  # that one process may take longer than another
CALLS: Counter[str] = Counter()  # how often this process met the others, by name


@dataclass
class Report:
    """What a run did: the numbers of results made and found, bytes written, and the broken images with their errors."""

    made: int = 0
    found: int = 0
    bytes: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


class Mismatch(CamplugError):
    """Things that do not fit together for any image; the run ends."""


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

    What is there already is left alone, so a run that was stopped goes on where it was; what it left half written is
    removed. Images go through one by one: a result does not depend on which others are made in the same run. A broken
    image is noted, and the run goes on.

    Args:
        data: the images.
        folder: where results go; see `ResultFolder.prepare`.
        make: the result of image i; where `read` is given, of what that returns.
        shard: (r, n): every n-th image, starting from the r-th.
        step: told after every image.
        read: what `make` needs of image i. It runs in a thread of its own, up to two images ahead, and results are
            written in another one, so that a device that `make` works on waits for neither.
        get_digests: function from an image's number to the digests of its result's inputs; a result of other inputs is
            made again. None accepts any result.

    Raises:
        InputError: a shard that is none; a place that cannot be written.
        Mismatch: whenever `make` raises it.
        Exception: whatever else stops the first image; nothing says that it is the image's fault.
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
    """An image whose turn comes: its number, what is read of it (None: its result is there), what it is made of."""

    i: int
    source: Future[Any] | None
    inputs: Mapping[str, str] | None


class _Run(Generic[T]):
    """A run of `make_results`: images that are being read, made, and written, each told of in its turn."""

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
        self.ahead = 0 if read is None else AHEAD
        self.read: Callable[[int], Any] = (lambda i: i) if read is None else read
        self.reader, self.writer = (_Worker(bool(self.ahead)) for _ in range(2))
        self.pending: deque[_PendingImage] = deque()
        self.writing: deque[tuple[str, Future[None] | str | None]] = deque()  # names, and what is written, or the error
        self.has_succeeded = False  # an image was made, or was there: what fails now is the image's fault

    def next_image(self, numbers: Iterator[int]) -> _PendingImage | None:
        """The next image, while those behind it are being read."""
        while len(self.pending) <= self.ahead and (i := next(numbers, None)) is not None:
            there, inputs = self._find_result(i)
            self.pending.append(_PendingImage(i, None if there else self.reader.submit(self.read, i), inputs))
        return self.pending.popleft() if self.pending else None

    def _find_result(self, i: int) -> tuple[bool, Mapping[str, str] | None]:
        """Whether the result of image i is there, and what it is made of, where that can be read."""
        name = self.data.ids[i]
        if self.get_digests is None:
            return self.folder.has_result(name), None
        try:
            inputs = self.get_digests(i)
        except InputError:  # making it tells what is wrong
            return False, None
        return self.folder.has_result(name, inputs) or self.folder.take_over(name, inputs), inputs

    def make_result(self, i: int, source: Future[Any] | None, inputs: Mapping[str, str] | None) -> None:
        """Make an image's result, and have it written."""
        name = self.data.ids[i]
        state: Future[None] | str | None = None
        try:
            if source is not None:
                result = self.make(source.result())
        except Mismatch:
            raise
        except Exception as error:  # somebody's own model may raise anything
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
        """Wait until no more than so many images are being written, and tell of the others."""
        while len(self.writing) > most:
            name, state = self.writing.popleft()
            if state is None:
                self.report.found += 1
            elif isinstance(state, str):
                self.report.broken.append((name, state))
            else:
                state.result()
                for part in self.leftovers.get(name, ()):  # older than this result, so nobody is writing it any more
                    part.unlink(missing_ok=True)
                self.report.made += 1
                self.report.bytes += self.folder.get_path(name).stat().st_size
            self.step(self.report)

    def close(self) -> None:
        """Let results that are made be written; nothing more is read."""
        self.reader.close()
        self.writer.close()


class _Worker:
    """Runs functions one after another in a thread of its own, or, without, at once."""

    def __init__(self, own: bool) -> None:
        self.pool = ThreadPoolExecutor(1) if own else None

    def submit(self, function: Callable[..., R], *arguments: Any) -> Future[R]:
        """Start a function; the future gives what it returns or raises."""
        if self.pool is not None:
            return self.pool.submit(function, *arguments)
        done: Future[R] = Future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """Wait for what is running; what is written is submitted in time, and what is read is not needed any more."""
        if self.pool is not None:
            self.pool.shutdown(wait=True)


def _get_first_line(error: Exception) -> str:
    """The first line of an error, with its kind if it is not one of ours."""
    lines = str(error).strip().splitlines()
    kind = [] if isinstance(error, CamplugError) else [type(error).__name__]
    return ": ".join([*kind, *lines[:1]]) or type(error).__name__


def hash_names(data: SegmentationData) -> str:
    """The first 16 digits of a SHA-256 of the images' names, which tells two lists of images apart."""
    return hashlib.sha256("\n".join(data.ids).encode()).hexdigest()[:16]


def share() -> tuple[int, int]:
    """This process's rank and the number of processes, as torchrun tells them; (0, 1) without it.

    Raises:
        InputError: RANK and WORLD_SIZE that do not fit together.
    """
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        rank, world = -1, 0
    if not 0 <= rank < world:
        raise InputError(
            f"RANK={os.environ.get('RANK')!r} and WORLD_SIZE={os.environ.get('WORLD_SIZE')!r} do not fit together; "
            "torchrun sets them, and RANK goes from 0 to WORLD_SIZE - 1."
        )
    return rank, world


def exchange(name: str, text: str = "") -> list[str]:
    """Wait until all processes of torchrun have come here, and learn what each of them brings, in the order of ranks.

    Works before, within and after a training on several processes, as often as wanted; all processes make the same
    calls. Without torchrun there is nobody to wait for.

    Args:
        name: of the occasion.
        text: what this process brings.

    Raises:
        InputError: RANK and WORLD_SIZE are set, but not by torchrun, so that processes cannot find each other.
        CamplugError: the others are gone.
    """
    rank, world = share()
    if world == 1:
        return [text]
    from torch import distributed

    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        if distributed.is_available() and distributed.is_initialized():
            texts: list[Any] = [None] * world
            distributed.all_gather_object(texts, text)
            return texts
        raise InputError(
            f"RANK={rank} and WORLD_SIZE={world} are set, but not by torchrun, by which processes find each other; "
            f"start them with: torchrun --nproc-per-node {world} -m camplug ..."
        )
    CALLS[name] += 1
    keys = [f"camplug/{name}/{CALLS[name]}/{other}" for other in range(world)]
    gone = [f"{key}/gone" for key in keys]
    try:
        store = _connect_store()
        store.set(keys[rank], text)
        store.wait(keys, TIMEOUT)
        texts = [store.get(key).decode() for key in keys]
        store.set(gone[rank], "")
        if rank == 0:  # the store may live in this process: it stays until nobody asks any more
            store.wait(gone, TIMEOUT)
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CamplugError(
            f"process {rank} of {world} has lost the others ({first}); start the command again, and it goes on."
        ) from error
    return texts


def wait_for_processes(name: str, *, needed: bool = True) -> None:
    """Wait until every process of torchrun has come here; see `exchange`.

    Args:
        name: of the occasion.
        needed: False for a process that is done, and waits only because torchrun ends all others when one ends with an
            exit code: then nothing that goes wrong here is told.

    Raises:
        CamplugError: as `exchange` does, where it is needed.
    """
    with suppress(*(() if needed else (CamplugError,))):
        exchange(name)


@cache
def _connect_store() -> Any:
    """Where the processes of torchrun leave each other words; kept, since it may live in this process."""
    from torch.distributed.rendezvous import rendezvous

    store, *_ = next(rendezvous("env://", timeout=TIMEOUT))
    return store
