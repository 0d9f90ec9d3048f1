"""A folder with one result per image of a data set, each with what it was made of."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.explanation import write_atomically
from camplug.wsss.store.identity import is_other, make_digest, make_file_digest
from camplug.wsss.store.settings_folder import SETTINGS, SettingsFolder

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData

T = TypeVar("T")


class ResultFolder(SettingsFolder, ABC, Generic[T]):
    """Reads and writes results by image name; each file appears whole or not at all.

    The first result that is saved writes the settings down.

    Args:
        path: the folder.
    """

    suffix: ClassVar[str]
    others: Sequence[ResultFolder[T]] = ()  # folders that may hold the same results already

    @abstractmethod
    def is_whole(self, name: str) -> bool:
        """Whether the result of an image is there and whole."""

    @abstractmethod
    def write(self, result: T, file: IO[bytes], digest_text: str) -> None:
        """Write a result into an open file, with a text that tells what it was made of."""

    @abstractmethod
    def read_digest_text(self, name: str) -> str | None:
        """Return the text that a result was written with; None for one without.

        Raises:
            Exception: there is no such file, or it is damaged.
        """

    def read_digests(self, name: str) -> dict[str, str]:
        """Return the digests of what an image's result was made of; nothing where that is not known."""
        try:
            found = json.loads(self.read_digest_text(name) or "{}")
        except Exception:  # zipfile, Pillow and numpy raise nearly anything on damaged files
            return {}
        return found if isinstance(found, dict) else {}

    def has_result(self, name: str, digests: Mapping[str, str] | None = None) -> bool:
        """Whether the result of an image is there, whole, and made with these settings of these inputs.

        Args:
            name: of the image.
            digests: digests of what it is to be made of; None accepts any.
        """
        return self.is_whole(name) and (
            digests is None or self.read_digests(name) == self._add_settings_digest(digests)
        )

    def take_over(self, name: str, digests: Mapping[str, str]) -> bool:
        """Take an image's result from one of `others`, if it was made with these settings of these inputs.

        Raises:
            InputError: the place cannot be written.
        """
        signed = self._add_settings_digest(digests)
        for other in self.others:
            if other.is_whole(name) and other.read_digests(name) == signed:
                self.write_settings()
                self._make_parent(name)
                link_or_copy(other.get_path(name), self.get_path(name))
                return True
        return False

    def compute_digest(self, name: str) -> str:
        """Return a digest of the bytes of an image's result.

        Raises:
            InputError: there is none.
        """
        return make_file_digest(self.get_path(name), "file")

    def _add_settings_digest(self, digests: Mapping[str, str]) -> dict[str, str]:
        return {"settings": self.get_settings_digest(), **digests}

    def get_settings_digest(self) -> str:
        """Return the digest of the settings that results are made with here."""
        if self._digest is None:
            unprepared = not self._settings and (self.path / SETTINGS).exists()
            self._digest = make_digest(self.read_settings() if unprepared else self._settings)
        return self._digest

    def get_path(self, name: str) -> Path:
        """Where the result of an image lies."""
        return self.path / f"{name}{self.suffix}"

    def find_leftovers(self) -> dict[str, list[Path]]:
        """By image name, the files that were half written when a run was killed, or are being written right now."""
        found: dict[str, list[Path]] = {}
        for part in self.path.rglob(f"*{self.suffix}.*.part"):
            name = part.relative_to(self.path).as_posix().rpartition(f"{self.suffix}.")[0]
            found.setdefault(name, []).append(part)
        return found

    def save(self, name: str, result: T, digests: Mapping[str, str] | None = None) -> None:
        """Write one result.

        Args:
            name: of the image.
            result: to be written.
            digests: digests of what it was made of, for `has_result`.

        Raises:
            InputError: the place cannot be written, or the folder has got results of other settings meanwhile.
        """
        self.write_settings()
        self._make_parent(name)
        text = json.dumps(self._add_settings_digest(digests or {}), sort_keys=True)
        write_atomically(str(self.get_path(name)), lambda f: self.write(result, f, text))

    def _make_parent(self, name: str) -> None:
        parent = self.get_path(name).parent
        try:
            parent.mkdir(parents=True, exist_ok=True)  # names may hold folders
        except OSError as error:
            raise InputError(f"the folder {str(parent)!r} cannot be made ({error.strerror}).") from None

    @override
    def clear(self) -> None:
        """Remove the results of other settings; another process may have made some of these by now."""
        mine = self.get_settings_digest()
        for file in self.path.rglob(f"*{self.suffix}"):
            name = file.relative_to(self.path).as_posix().removesuffix(self.suffix)
            if self.read_digests(name).get("settings") != mine:
                file.unlink(missing_ok=True)


def check_digests(folder: ResultFolder[Any], data: SegmentationData, i: int, labels: bool = False) -> None:
    """Refuse the result of an image that was made of another photograph, or of other labels.

    Args:
        folder: with the result; one that does not say what it was made of is accepted.
        data: the images.
        i: the image's number.
        labels: compare labels, too, where the image has any.

    Raises:
        InputError: it was made of something else.
    """
    before = folder.read_digests(data.ids[i])
    now = {"photograph": data.photo_digest(i)} if "photograph" in before else {}
    if labels and "labels" in before and data.has_labels:
        with suppress(InputError):  # labels are not needed here
            now["labels"] = data.label_digest(i)
    for what, called in (("photograph", "another photograph"), ("labels", "other labels")):
        if what in now and is_other(now[what], before[what]):
            raise InputError(
                f"the file {str(folder.get_path(data.ids[i]))!r} was made of {called}; run the command that made it "
                "again."
            )


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file that is never changed in place under another name as well, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
    beside = Path(f"{target}.{os.getpid()}.part")
    try:
        try:
            os.link(source, beside)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, beside)
        os.replace(beside, target)
    except OSError as error:
        raise InputError(f"{str(target)!r} cannot be written ({error.strerror or error}).") from None
    finally:
        beside.unlink(missing_ok=True)
