"""A folder with one result per image of a data set, and what the results were made with."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Generic, TypeVar

from camplug.errors import InputError
from camplug.explain.explanation import write_atomically

SETTINGS = "settings.json"

T = TypeVar("T")


class SettledFolder:
    """A folder that knows what its content was made with, and refuses to mix in anything made otherwise.

    Args:
        path: the folder.
    """

    what: ClassVar[str]  # what it holds, in messages

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._settings: dict[str, Any] | None = None  # to be written down

    def prepare(self, settings: Mapping[str, Any]) -> None:
        """Make the folder for content of these settings, or go on with one that has the same.

        They are written down by `settle`: a run that makes nothing leaves the folder open for others.

        Raises:
            InputError: the folder holds what was made with other settings, or cannot be made.
        """
        self._settings = json.loads(json.dumps(dict(settings)))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(self.path)!r} cannot be made ({error.strerror}).") from None
        self._settled()

    def _settled(self) -> bool:
        """Whether these very settings are written down already."""
        if not (self.path / SETTINGS).exists():
            return False
        here, before = _flat(self._settings or {}), _flat(self.settings())
        differing = sorted(k for k in {*before, *here} if before.get(k) != here.get(k))
        if differing:
            first = differing[0]
            raise InputError(
                f"{str(self.path)!r} holds {self.what} of other settings: {', '.join(differing)} "
                f"{'differs' if len(differing) == 1 else 'differ'} ({first}: {before.get(first)!r} there, "
                f"{here.get(first)!r} now); give another folder with --out, or delete this one."
            )
        return True

    def settings(self) -> dict[str, Any]:
        """What the results were made with.

        Raises:
            InputError: this is no such folder.
        """
        try:
            found = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{str(self.path)!r} is no folder of {self.what}: it has no {SETTINGS}.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{str(self.path / SETTINGS)!r} cannot be read ({error}).") from None
        if not isinstance(found, dict):
            raise InputError(f"{str(self.path / SETTINGS)!r} holds no settings.")
        return found

    def settle(self) -> None:
        """Write the settings down, once there is something that was made with them.

        Raises:
            InputError: the place cannot be written, or the folder has got other settings meanwhile.
        """
        if self._settings is not None:
            if not self._settled():
                text = json.dumps(self._settings, indent=2) + "\n"
                write_atomically(str(self.path / SETTINGS), lambda f: f.write(text.encode()))
            self._settings = None


class ResultFolder(SettledFolder, ABC, Generic[T]):
    """Reads and writes results by image name; each file appears whole or not at all.

    The first result that is saved writes the settings down.

    Args:
        path: the folder.
    """

    suffix: ClassVar[str]

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Whether the result of an image is there and whole."""

    @abstractmethod
    def write(self, result: T, file: IO[bytes]) -> None:
        """Write a result into an open file."""

    def file(self, name: str) -> Path:
        """Where the result of an image lies."""
        return self.path / f"{name}{self.suffix}"

    def leftovers(self) -> dict[str, list[Path]]:
        """By image name, the files that were half written when a run was killed, or are being written right now."""
        found: dict[str, list[Path]] = {}
        for part in self.path.rglob(f"*{self.suffix}.*.part"):
            name = part.relative_to(self.path).as_posix().rpartition(f"{self.suffix}.")[0]
            found.setdefault(name, []).append(part)
        return found

    def save(self, name: str, result: T) -> None:
        """Write one result.

        Raises:
            InputError: the place cannot be written, or the folder has got results of other settings meanwhile.
        """
        self.settle()
        file = self.file(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)  # names may hold folders
        except OSError as error:
            raise InputError(f"the folder {str(file.parent)!r} cannot be made ({error.strerror}).") from None
        write_atomically(str(file), lambda f: self.write(result, f))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings within settings by their dotted names, so that a message can say which one differs."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{k}": v for k, v in _flat(value).items()} if isinstance(value, dict) else {name: value}
    return flat
