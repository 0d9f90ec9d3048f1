"""Folders with one result file per image, each with the digests of its inputs."""

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
from camplug.images.save import write_atomically
from camplug.wsss.store.identity import is_other, make_digest, make_file_digest
from camplug.wsss.store.settings_folder import SETTINGS, SettingsFolder

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData

T = TypeVar("T")


class ResultFolder(SettingsFolder, ABC, Generic[T]):
    """Folder of results by image name; files are written atomically.

    The first result that is saved writes the settings.

    Args:
        path: folder; `prepare` creates it.
    """

    suffix: ClassVar[str]
    others: Sequence[ResultFolder[T]] = ()  # folders that may hold the same results

    @abstractmethod
    def is_whole(self, name: str) -> bool:
        """Return whether the result of an image exists and is complete."""

    @abstractmethod
    def write(self, result: T, file: IO[bytes], digest_text: str) -> None:
        """Write a result and the text with the digests of its inputs into an open file."""

    @abstractmethod
    def read_digest_text(self, name: str) -> str | None:
        """Read the text with the digests of a result's inputs; None if the file has none.

        Raises:
            Exception: the file is missing or damaged.
        """

    def read_digests(self, name: str) -> dict[str, str]:
        """Read the digests of a result's inputs; empty if they are unknown."""
        try:
            found = json.loads(self.read_digest_text(name) or "{}")
        except Exception:  # zipfile, Pillow and numpy raise nearly anything on damaged files
            return {}
        return found if isinstance(found, dict) else {}

    def has_result(self, name: str, digests: Mapping[str, str] | None = None) -> bool:
        """Return whether the result of an image exists, is complete, and has these settings and inputs.

        Args:
            name: image name.
            digests: digests of the inputs; None accepts any.
        """
        return self.is_whole(name) and (
            digests is None or self.read_digests(name) == self._add_settings_digest(digests)
        )

    def take_over(self, name: str, digests: Mapping[str, str]) -> bool:
        """Link a result from one of `others` that has these settings and inputs; return whether there was one.

        Raises:
            InputError: the folder cannot be written.
        """
        signed = self._add_settings_digest(digests)
        for other in self.others:
            if other.is_whole(name) and other.read_digests(name) == signed:
                self._check_own(name)
                self.write_settings()
                self._make_parent(name)
                link_or_copy(other.get_path(name), self.get_path(name))
                return True
        return False

    def compute_digest(self, name: str) -> str:
        """Compute a digest of the bytes of a result file.

        Raises:
            InputError: the file is missing.
        """
        return make_file_digest(self.get_path(name), "file")

    def _add_settings_digest(self, digests: Mapping[str, str]) -> dict[str, str]:
        return {"settings": self.get_settings_digest(), **digests}

    def get_settings_digest(self) -> str:
        """Return the digest of the folder's settings."""
        if self._digest is None:
            unprepared = not self._settings and (self.path / SETTINGS).exists()
            self._digest = make_digest(self.read_settings() if unprepared else self._settings)
        return self._digest

    def get_path(self, name: str) -> Path:
        """Return the path of an image's result."""
        return self.path / f"{name}{self.suffix}"

    def find_leftovers(self) -> dict[str, list[Path]]:
        """Find partly written files by image name: those of killed runs and those being written now."""
        found: dict[str, list[Path]] = {}
        for part in self.path.rglob(f"*{self.suffix}.*.part"):
            name = part.relative_to(self.path).as_posix().rpartition(f"{self.suffix}.")[0]
            found.setdefault(name, []).append(part)
        return found

    def save(self, name: str, result: T, digests: Mapping[str, str] | None = None) -> None:
        """Write one result.

        Args:
            name: image name.
            result: result to write.
            digests: digests of its inputs; see `has_result`.

        Raises:
            InputError: the folder cannot be written, another process has written other settings, or the file is there
                and was not made by camplug.
        """
        self._check_own(name)
        self.write_settings()
        self._make_parent(name)
        text = json.dumps(self._add_settings_digest(digests or {}), sort_keys=True)
        write_atomically(str(self.get_path(name)), lambda f: self.write(result, f, text))

    def _check_own(self, name: str) -> None:
        """Raise InputError if the file of a result is there and was not made by camplug, such as a photograph."""
        if not self.is_whole(name):
            return
        try:
            made_of = self.read_digest_text(name)
        except Exception:  # damaged
            return
        if made_of is None:
            raise InputError(
                f"{str(self.get_path(name))!r} is there and was not made by camplug, which does not replace it; give "
                "another --out."
            )

    def _make_parent(self, name: str) -> None:
        parent = self.get_path(name).parent
        try:
            parent.mkdir(parents=True, exist_ok=True)  # names may hold folders
        except OSError as error:
            raise InputError(f"the folder {str(parent)!r} cannot be made ({error.strerror}).") from None

    @override
    def clear(self) -> None:
        """Remove the results of other settings, and no other files; other processes may have saved results of these."""
        mine = self.get_settings_digest()
        for file in self.path.rglob(f"*{self.suffix}"):
            name = file.relative_to(self.path).as_posix().removesuffix(self.suffix)
            if self.read_digests(name).get("settings", mine) != mine:
                file.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove the result of an image, if there is one that camplug has made."""
        if "settings" in self.read_digests(name):
            self.get_path(name).unlink(missing_ok=True)


def check_digests(folder: ResultFolder[Any], data: SegmentationData, i: int, labels: bool = False) -> None:
    """Check that a result was made from an image's photograph, and labels.

    Args:
        folder: folder of the result; results without digests are accepted.
        data: images.
        i: image index.
        labels: compare the labels, too, if the image has any.

    Raises:
        InputError: the photograph or the labels differ.
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
    """Give a file that is never changed in place a second name, atomically.

    Raises:
        InputError: the target cannot be written.
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
