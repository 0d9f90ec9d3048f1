"""Folders of stages, named by a hash of everything their results depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.plugins import PREFIX
from camplug.settings import to_plain
from camplug.wsss.recipe.data import identify_images
from camplug.wsss.recipe.sections import load_named_network
from camplug.wsss.recipe.stage import Data, Stage, get_stage
from camplug.wsss.saliency import KINDS, make_saliency_table
from camplug.wsss.saliency_network import parse_network
from camplug.wsss.store.identity import hash_file, hash_weights, make_digest

DONE, SPENT = "done.json", "spent.json"


class Cache:
    """Folders of stages below `out`/cache, each named by its stage and a hash.

    The hash covers the stage's name, version and settings, the hashes of its inputs, the parts of its images that it
    reads, and its weight files. So results that depend on something that has changed get another folder, and all others
    are found again.

    Args:
        out: folder of the run.
        data: lists of images that are on disk.
    """

    def __init__(self, out: Path, data: Data) -> None:
        self.root, self.data = out / "cache", data
        self._keys: dict[Stage, str | None] = {}
        self._files: dict[str, str | None] = {}
        self._weights: dict[str, str] = {}
        self._identities: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}

    def get_key(self, stage: Stage) -> str | None:
        """Return the hash of a stage; None if its images or files are not on disk."""
        if stage not in self._keys:
            self._keys[stage] = self._make_key(stage)
        return self._keys[stage]

    def _make_key(self, stage: Stage) -> str | None:
        inputs = {role: self.get_key(other) for role, other in stage.inputs.items()}
        files = {name: self.get_file_hash(name) for name in stage.files}
        lists = [name for name in (stage.part, stage.settings.get("validation")) if name is not None]
        if None in inputs.values() or None in files.values() or any(name not in self.data for name in lists):
            return None
        kind = get_stage(stage.kind)
        document = {
            "stage": stage.name,
            "version": kind.version,
            "settings": remove_paths(stage.settings),
            "inputs": inputs,
            "data": [self.get_identity(name, kind.reads) for name in lists],
            "saliency": self._digest_saliency(stage),
            "files": sorted(str(value) for value in files.values()),
        }
        if (weights := self._hash_imported(stage)) is not None:
            document["weights"] = weights
        text = json.dumps(to_plain(document), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def get_identity(self, name: str, reads: tuple[str, ...]) -> dict[str, Any]:
        """Return what identifies the parts of a list of images that a stage reads."""
        if (name, reads) not in self._identities:
            self._identities[name, reads] = identify_images(self.data[name], reads)
        return self._identities[name, reads]

    def _digest_saliency(self, stage: Stage) -> str | None:
        """Return a digest of the saliency files that a training reads."""
        source = stage.settings.get("saliency")
        if source is None or source in KINDS or stage.part is None:
            return None
        if (network := parse_network(source)) is not None:
            return make_digest(network.describe())
        return make_digest(list(make_saliency_table(Path(source), self.data[stage.part]).values()))

    def _hash_imported(self, stage: Stage) -> str | None:
        """Return a hash of the weights of a network that a function of the user's makes, from any files."""
        network = stage.settings.get("network")
        if not isinstance(network, Mapping) or not str(network["model"]).startswith(PREFIX):
            return None
        key = json.dumps(to_plain(network), sort_keys=True)
        if key not in self._weights:
            self._weights[key] = hash_weights(load_named_network(network))
        return self._weights[key]

    def list_others(self, stage: Stage) -> list[Path]:
        """Return the folders of other stages of the same kind, which may hold the same results; newest first."""
        own = self.get_folder(stage)
        found = [folder for folder in self.root.glob(f"{stage.kind}-*") if folder != own and folder.is_dir()]
        return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)

    def get_file_hash(self, file: str) -> str | None:
        """Return the hash of a weight file; None if it does not exist."""
        if file not in self._files:
            try:
                self._files[file] = hash_file(file)
            except OSError:
                self._files[file] = None
        return self._files[file]

    def get_folder(self, stage: Stage) -> Path:
        """Return the folder of a stage.

        Raises:
            InputError: its images or files are not on disk.
        """
        key = self.get_key(stage)
        if key is None:
            missing = [name for name in stage.files if self.get_file_hash(name) is None]
            what = f"the file {missing[0]!r} is not there" if missing else "its data are not there"
            raise InputError(f"the stage {stage.name!r} cannot be made: {what}.")
        return self.root / f"{stage.name.replace(' ', '-')}-{key[:12]}"

    def load_document(self, stage: Stage) -> dict[str, Any] | None:
        """Return the document of a finished stage; None if it is not finished."""
        key = self.get_key(stage)
        if key is None:
            return None
        try:
            found = json.loads((self.get_folder(stage) / DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("key") == key else None

    def save_document(self, stage: Stage, document: Mapping[str, Any]) -> dict[str, Any]:
        """Mark a stage as finished and store its document."""
        folder = self.get_folder(stage)
        found = {
            "stage": stage.name,
            "key": self.get_key(stage),
            "settings": to_plain(dict(stage.settings)),
            **document,
        }
        write_json(folder / DONE, found)
        (folder / SPENT).unlink(missing_ok=True)
        return found

    def load_spent_seconds(self, stage: Stage) -> float:
        """Return the seconds that interrupted runs of a stage took."""
        try:
            return float(json.loads((self.get_folder(stage) / SPENT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return 0.0

    def save_spent_seconds(self, stage: Stage, seconds: float) -> None:
        """Store the seconds that interrupted runs of a stage took."""
        if self.get_folder(stage).is_dir():
            write_json(self.get_folder(stage) / SPENT, seconds)


def remove_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the paths of files, which are identified by their content."""
    found: dict[str, Any] = to_plain(dict(settings))
    network = found.get("network")
    if isinstance(network, dict):
        is_file = str(network["model"]).endswith((".pt", ".pth"))
        found["network"] = network | {
            "model": "a trained classifier" if is_file else network["model"],
            "checkpoint": network["checkpoint"] is not None,
        }
    if isinstance(found.get("corrected"), dict):
        found["corrected"].pop("folder", None)  # its digest is there
    if found.get("saliency") not in (None, *KINDS):
        found["saliency"] = "files"
    return found


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomically(str(path), lambda file: file.write((json.dumps(document, indent=2) + "\n").encode()))


def count_bytes(folder: Path) -> int:
    """Return the size of all files in a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
