"""Where the products of stages lie: folders by a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.explain.explanation import write_atomically
from camplug.settings import to_plain
from camplug.wsss.recipe.data import identity
from camplug.wsss.recipe.stage import Data, Stage, get_stage
from camplug.wsss.saliency import KINDS, make_saliency_table
from camplug.wsss.store.identity import hash_file, make_digest

DONE, SPENT = "done.json", "spent.json"


class Cache:
    """The folders of stages below `out`/cache, each named by its stage and a hash.

    The hash is of the stage's name, version and settings, of the hashes of the stages that it takes something from, of
    the content of its images as far as it uses them, and of the weight files that it reads: what depends on something
    that has changed has another folder, and everything else is found again.

    Args:
        out: folder of the run.
        data: the recipe's lists of images that are on disk.
    """

    def __init__(self, out: Path, data: Data) -> None:
        self.root, self.data = out / "cache", data
        self._keys: dict[Stage, str | None] = {}
        self._files: dict[str, str | None] = {}
        self._identities: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}

    def key(self, stage: Stage) -> str | None:
        """The hash of a stage; None where its images, or its files, are not on disk."""
        if stage not in self._keys:
            self._keys[stage] = self._key(stage)
        return self._keys[stage]

    def _key(self, stage: Stage) -> str | None:
        inputs = {role: self.key(other) for role, other in stage.inputs.items()}
        files = {name: self.fingerprint(name) for name in stage.files}
        lists = [name for name in (stage.part, stage.settings.get("validation")) if name is not None]
        if None in inputs.values() or None in files.values() or any(name not in self.data for name in lists):
            return None
        kind = get_stage(stage.kind)
        document = {
            "stage": stage.name,
            "version": kind.version,
            "settings": without_paths(stage.settings),
            "inputs": inputs,
            "data": [self.identity(name, kind.reads) for name in lists],
            "saliency": self._saliency(stage),
            "files": sorted(str(value) for value in files.values()),
        }
        text = json.dumps(to_plain(document), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self, name: str, reads: tuple[str, ...]) -> dict[str, Any]:
        """Return what tells a list of images from others, as far as a stage uses it."""
        if (name, reads) not in self._identities:
            self._identities[name, reads] = identity(self.data[name], reads)
        return self._identities[name, reads]

    def _saliency(self, stage: Stage) -> str | None:
        """A digest of the saliency maps in files that a training reads."""
        source = stage.settings.get("saliency")
        if source is None or source in KINDS or stage.part is None:
            return None
        return make_digest(list(make_saliency_table(Path(source), self.data[stage.part]).values()))

    def others(self, stage: Stage) -> list[Path]:
        """Return the folders of stages of the same kind, which may hold some of its results; the newest first."""
        own = self.folder(stage)
        found = [folder for folder in self.root.glob(f"{stage.kind}-*") if folder != own and folder.is_dir()]
        return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)

    def fingerprint(self, file: str) -> str | None:
        """A hash of a file of weights; None where there is none."""
        if file not in self._files:
            try:
                self._files[file] = hash_file(file)
            except OSError:
                self._files[file] = None
        return self._files[file]

    def folder(self, stage: Stage) -> Path:
        """Where a stage's products lie.

        Raises:
            InputError: its images, or its files, are not on disk.
        """
        key = self.key(stage)
        if key is None:
            missing = [name for name in stage.files if self.fingerprint(name) is None]
            what = f"the file {missing[0]!r} is not there" if missing else "its data are not there"
            raise InputError(f"the stage {stage.name!r} cannot be made: {what}.")
        return self.root / f"{stage.name.replace(' ', '-')}-{key[:12]}"

    def done(self, stage: Stage) -> dict[str, Any] | None:
        """What a finished stage has written down; None for any other."""
        key = self.key(stage)
        if key is None:
            return None
        try:
            found = json.loads((self.folder(stage) / DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("key") == key else None

    def finish(self, stage: Stage, document: Mapping[str, Any]) -> dict[str, Any]:
        """Write down, at last, that a stage is finished, and with what."""
        folder = self.folder(stage)
        found = {"stage": stage.name, "key": self.key(stage), "settings": to_plain(dict(stage.settings)), **document}
        write_json(folder / DONE, found)
        (folder / SPENT).unlink(missing_ok=True)
        return found

    def spent(self, stage: Stage) -> float:
        """Seconds that earlier runs of a stage took, which ended before it did."""
        try:
            return float(json.loads((self.folder(stage) / SPENT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return 0.0

    def spend(self, stage: Stage, seconds: float) -> None:
        """Write down what a run took that ends before its stage does."""
        if self.folder(stage).is_dir():
            write_json(self.folder(stage) / SPENT, seconds)


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stage without the paths of files, whose content tells them apart."""
    found: dict[str, Any] = to_plain(dict(settings))
    network = found.get("network")
    if isinstance(network, dict):
        is_file = str(network["model"]).endswith((".pt", ".pth"))
        found["network"] = network | {
            "model": "a trained classifier" if is_file else network["model"],
            "checkpoint": network["checkpoint"] is not None,
        }
    if found.get("saliency") not in (None, *KINDS):
        found["saliency"] = "a folder"
    return found


def write_json(path: Path, document: Any) -> None:
    """A file of JSON, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
    write_atomically(str(path), lambda file: file.write((json.dumps(document, indent=2) + "\n").encode()))


def bytes_in(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
