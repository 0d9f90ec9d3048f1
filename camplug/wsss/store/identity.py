"""Digests of files, weights, plain data and images, which identify the inputs of results by content."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camplug.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from camplug.wsss.data import SegmentationData

DIGITS = 16  # length of a digest
CACHE = "CAMPLUG_CACHE"  # environment variable with the cache folder
HASHES = "hashes.sqlite"
RACY = 2 * 10**9  # ns; a file changed less long ago may change again within its time stamp
MISSING = "missing"
PHRASES = {  # singular and plural by kind of input
    "photographs": ("another photograph", "other photographs"),
    "labels": ("other labels", "other labels"),
    "seeds": ("another seed", "other seeds"),
    "pictures": ("another label picture", "other label pictures"),
    "saliency": ("another saliency map", "other saliency maps"),
}


def make_digest(document: Any) -> str:
    """Compute the first 16 digits of the SHA-256 of plain data; the order of keys does not matter.

    >>> make_digest({"a": 1, "b": (2, 3)}) == make_digest({"b": [2, 3], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:DIGITS]


def hash_weights(model: nn.Module) -> str:
    """Compute the first 16 digits of the SHA-256 of a network's weights and buffers, on any device."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:DIGITS]


def hash_file(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a file's content; unchanged files are not read again.

    Hashes are cached by path, size, inode and time stamps in one database in the folder CAMPLUG_CACHE, by default the
    user's cache folder. Several processes may share it.

    Args:
        path: file.

    Raises:
        OSError: the file cannot be read.
    """
    return _HASHES.get_hash(os.path.abspath(path))


def make_file_digest(path: str | os.PathLike[str], kind: str) -> str:
    """Compute the first 16 digits of the SHA-256 of a file's content; see `hash_file`.

    Args:
        path: file.
        kind: name of the file's kind in messages.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return hash_file(path)[:DIGITS]
    except OSError as error:
        raise InputError(f"the {kind} {os.fspath(path)!r} cannot be read ({error.strerror or error}).") from None


def make_network_settings(network: nn.Module, model: str, num_classes: int | None = None) -> dict[str, Any]:
    """Return the settings that identify a loaded network.

    Args:
        network: network with its weights.
        model: text that `load_model` loaded it by; files count by content, not by path.
        num_classes: number of classes that was given to `load_model`.
    """
    if not model.endswith((".pt", ".pth")):
        return {"model": model, "num_classes": num_classes, "weights": hash_weights(network)}
    weights = make_digest([make_file_digest(model, "classifier"), hash_weights(network)])
    return {"model": "a trained classifier", "num_classes": None, "weights": weights}


def is_other(one: str, other: str) -> bool:
    """Return whether two digests of the same kind differ; the kind is the text before the colon.

    >>> is_other("scene:1", "scene:2"), is_other("scene:1", "2")
    (True, False)
    """
    return one != other and one.rpartition(":")[0] == other.rpartition(":")[0]


def get_cache_folder() -> Path:
    """Return the folder CAMPLUG_CACHE, by default the user's cache folder on this platform."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "camplug"


class _Hashes:
    """Database of file hashes; without access to it every file is read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: Path | None = None
        self._database: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection | None] = []

    def get_hash(self, path: str) -> str:
        before = _get_stamp(path)
        with self._lock:
            known = self._query("SELECT sha256 FROM files WHERE path = ? AND stamp = ?", (path, before))
            if known:
                return str(known[0][0])
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if _get_stamp(path) == before and time.time_ns() - _get_change_time(path) > RACY:
            with self._lock:
                self._query("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (path, before, found))
        return found

    def _query(self, sql: str, values: tuple[str, ...]) -> list[Any]:
        try:
            database = self._connect()
            return [] if database is None else database.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeError):  # locked, damaged, a full disk, a name without a code: the file is read
            return []

    def _connect(self) -> sqlite3.Connection | None:
        place = get_cache_folder()
        if self._opened != place:
            self._opened, self._database = place, None
            with suppress(OSError, sqlite3.Error):
                place.mkdir(parents=True, exist_ok=True)
                database = sqlite3.connect(place / HASHES, 5, isolation_level=None, check_same_thread=False)
                database.execute("PRAGMA synchronous = OFF")  # a lost entry costs one reading
                database.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT)")
                self._database = database
        return self._database

    def prepare_fork(self) -> None:
        """Wait until no thread is inside SQLite, whose own locks would stay closed in the forked process."""
        self._lock.acquire()

    def resume_in_parent(self) -> None:
        """Allow queries again after a fork."""
        self._lock.release()

    def reset_in_child(self) -> None:
        """Open the database anew in a forked process; the inherited connection belongs to the parent."""
        self._inherited.append(self._database)  # closing it here would drop the parent's file locks
        self._lock, self._opened, self._database = threading.Lock(), None, None


_HASHES = _Hashes()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_HASHES.prepare_fork,
        after_in_parent=_HASHES.resume_in_parent,
        after_in_child=_HASHES.reset_in_child,
    )


def _get_stamp(path: str) -> str:
    found = os.stat(path)
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}"


def _get_change_time(path: str) -> int:
    found = os.stat(path)
    return max(found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True)
class Inputs:
    """Digests of a training's inputs.

    Attributes:
        tables: digests by image name for each kind of input in `PHRASES`.
    """

    tables: Mapping[str, Mapping[str, str]]

    def make_digests(self) -> dict[str, str]:
        """Compute one digest per table."""
        return {what: make_digest(list(table.items())) for what, table in self.tables.items()}

    def describe_differences(self, before: Inputs) -> list[str]:
        """Describe the differences from earlier inputs.

        >>> one = Inputs({"labels": {"a": "1", "b": "2"}})
        >>> one.describe_differences(Inputs({"labels": {"a": "1", "b": "3"}}))
        ['1 of 2 images has other labels']
        >>> one.describe_differences(Inputs({"labels": {"a": "1", "c": "3"}}))
        ['1 image is new', '1 image is gone']
        """
        here, there = (next(iter(one.tables.values()), {}) for one in (self, before))
        lines = []
        for names, word in ((here.keys() - there.keys(), "new"), (there.keys() - here.keys(), "gone")):
            if names:
                lines.append(f"{len(names)} image{' is' if len(names) == 1 else 's are'} {word}")
        if not lines and list(here) != list(there):
            lines.append("the images are in another order")
        for what, table in self.tables.items():
            old = before.tables.get(what, {})
            count = sum(name in old and old[name] != digest for name, digest in table.items())
            if count:
                one, several = PHRASES[what]
                lines.append(f"{count} of {len(here)} images {'has ' + one if count == 1 else 'have ' + several}")
        return lines


def make_photograph_table(data: SegmentationData) -> dict[str, str]:
    """Compute the digests of a data set's photographs by name; see `make_digest_table`."""
    return make_digest_table(data.ids, data.photo_digest)


def make_label_table(data: SegmentationData) -> dict[str, str]:
    """Compute the digests of the images' labels by name; see `make_digest_table`."""
    return make_digest_table(data.ids, data.label_digest)


def make_file_table(ids: Sequence[str], file: Callable[[str], Path]) -> dict[str, str]:
    """Compute the digests of the images' files by name; see `make_digest_table`."""
    return make_digest_table(ids, lambda i: hash_file(file(ids[i]))[:DIGITS])


def make_digest_table(ids: Sequence[str], digest: Callable[[int], str]) -> dict[str, str]:
    """Compute the digests of all images by name; "missing" for images that cannot be read.

    Args:
        ids: image names.
        digest: function from an image's index to its digest.
    """
    table = {}
    for i, name in enumerate(ids):
        try:
            table[name] = digest(i)
        except (InputError, OSError):
            table[name] = MISSING
    return table


def hash_names(data: SegmentationData) -> str:
    """Compute the first 16 digits of the SHA-256 of the image names, which identifies a list of images."""
    return hashlib.sha256("\n".join(data.ids).encode(errors="surrogateescape")).hexdigest()[:DIGITS]


def hash_photographs(data: SegmentationData) -> str:
    """Compute a digest of a data set's photographs, independent of their names and order."""
    return make_set_digest(make_photograph_table(data).values())


def make_set_digest(digests: Iterable[str]) -> str:
    """Compute a digest of digests, independent of their order."""
    return make_digest(sorted(digests))
