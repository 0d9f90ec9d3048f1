"""What a result was made from, told by content: digests of files, weights, plain data, and the images of a data set."""

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

DIGITS = 16  # of a digest
CACHE = "CAMPLUG_CACHE"  # the variable that names the cache folder
HASHES = "hashes.sqlite"
RACY = 2 * 10**9  # ns; a younger file may change again without another time stamp
MISSING = "missing"
PHRASES = {  # one and several of what an image has
    "photographs": ("another photograph", "other photographs"),
    "labels": ("other labels", "other labels"),
    "seeds": ("another seed", "other seeds"),
    "pictures": ("another label picture", "other label pictures"),
    "saliency": ("another saliency map", "other saliency maps"),
}


def make_digest(document: Any) -> str:
    """Return the first 16 digits of the SHA-256 of plain data, whatever the order of its keys.

    >>> make_digest({"a": 1, "b": (2, 3)}) == make_digest({"b": [2, 3], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:DIGITS]


def hash_weights(model: nn.Module) -> str:
    """Return the first 16 digits of the SHA-256 of a network's weights and buffers, on any device."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:DIGITS]


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content; a file that has not changed since is not read again.

    Hashes are kept in one file in the folder that the variable CAMPLUG_CACHE names, by default the user's cache folder,
    and found by path, size, inode and time stamps. Several processes may share it.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
    """
    return _HASHES.get_hash(os.path.abspath(path))


def make_file_digest(path: str | os.PathLike[str], called: str) -> str:
    """Return the first 16 digits of the SHA-256 of a file's content; see `hash_file`.

    Args:
        path: the file.
        called: what it is, in messages.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return hash_file(path)[:DIGITS]
    except OSError as error:
        raise InputError(f"the {called} {os.fspath(path)!r} cannot be read ({error.strerror or error}).") from None


def make_network_settings(network: nn.Module, model: str, num_classes: int | None = None) -> dict[str, Any]:
    """Return what tells a loaded network from others, for the settings of what is made with it.

    Args:
        network: with its weights.
        model: the text that it was loaded by; the path of a file does not matter, its content does.
        num_classes: of its head, as it was asked for.
    """
    if not model.endswith((".pt", ".pth")):
        return {"model": model, "num_classes": num_classes, "weights": hash_weights(network)}
    weights = make_digest([make_file_digest(model, "classifier"), hash_weights(network)])
    return {"model": "a trained classifier", "num_classes": None, "weights": weights}


def is_other(one: str, other: str) -> bool:
    """Return whether two digests of the same kind differ; the kind is what stands before a colon.

    >>> is_other("scene:1", "scene:2"), is_other("scene:1", "2")
    (True, False)
    """
    return one != other and one.rpartition(":")[0] == other.rpartition(":")[0]


def get_cache_folder() -> Path:
    """Return the folder that CAMPLUG_CACHE names, or the platform's cache folder of this user."""
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
    """Hashes of files in a database; where that cannot be had, every file is read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: Path | None = None
        self._database: sqlite3.Connection | None = None

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
        except sqlite3.Error:  # locked for long, damaged, a full disk: the file is read instead
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

    def forget(self) -> None:
        """Begin anew in a forked process, where another thread's lock would never be released."""
        self._lock, self._opened, self._database = threading.Lock(), None, None


_HASHES = _Hashes()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HASHES.forget)


def _get_stamp(path: str) -> str:
    found = os.stat(path)
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}"


def _get_change_time(path: str) -> int:
    found = os.stat(path)
    return max(found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True)
class Inputs:
    """What a training learns from, image by image.

    Attributes:
        tables: digests by image name, by what they are of; see `PHRASES`.
    """

    tables: Mapping[str, Mapping[str, str]]

    def make_digests(self) -> dict[str, str]:
        """Return one digest of each table."""
        return {what: make_digest(list(table.items())) for what, table in self.tables.items()}

    def describe_differences(self, before: Inputs) -> list[str]:
        """Return in words what is other than before.

        >>> one = Inputs({"labels": {"a": "1", "b": "2"}})
        >>> one.describe_differences(Inputs({"labels": {"a": "1", "b": "3"}}))
        ['1 of 2 images has other labels']
        >>> one.describe_differences(Inputs({"labels": {"a": "1", "c": "3"}}))
        ['1 image is new', '1 image is gone']
        """
        here, there = (next(iter(one.tables.values()), {}) for one in (self, before))
        said = []
        for names, word in ((here.keys() - there.keys(), "new"), (there.keys() - here.keys(), "gone")):
            if names:
                said.append(f"{len(names)} image{' is' if len(names) == 1 else 's are'} {word}")
        if not said and list(here) != list(there):
            said.append("the images are in another order")
        for what, table in self.tables.items():
            old = before.tables.get(what, {})
            count = sum(name in old and old[name] != digest for name, digest in table.items())
            if count:
                one, several = PHRASES[what]
                said.append(f"{count} of {len(here)} images {'has ' + one if count == 1 else 'have ' + several}")
        return said


def make_photograph_table(data: SegmentationData) -> dict[str, str]:
    """Return the digests of a data set's photographs by name; see `make_digest_table`."""
    return make_digest_table(data.ids, data.photo_digest)


def make_label_table(data: SegmentationData) -> dict[str, str]:
    """Return the digests of the images' labels by name; see `make_digest_table`."""
    return make_digest_table(data.ids, data.label_digest)


def make_file_table(ids: Sequence[str], file: Callable[[str], Path]) -> dict[str, str]:
    """Return the digests of images' result files by name; see `make_digest_table`."""
    return make_digest_table(ids, lambda i: hash_file(file(ids[i]))[:DIGITS])


def make_digest_table(ids: Sequence[str], digest: Callable[[int], str]) -> dict[str, str]:
    """Return the digests of all images by name, "missing" for one that cannot be read.

    Args:
        ids: names of the images.
        digest: of image i.
    """
    table = {}
    for i, name in enumerate(ids):
        try:
            table[name] = digest(i)
        except (InputError, OSError):
            table[name] = MISSING
    return table


def hash_photographs(data: SegmentationData) -> str:
    """Return a digest of a data set's photographs, whatever their names and their order."""
    return make_set_digest(make_photograph_table(data).values())


def make_set_digest(digests: Iterable[str]) -> str:
    """Return a digest of digests, whatever their order."""
    return make_digest(sorted(digests))
