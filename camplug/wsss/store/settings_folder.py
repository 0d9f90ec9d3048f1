"""Output folders that record the settings of their content and refuse to mix settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.wsss.store.identity import Inputs

SETTINGS = "settings.json"
INPUTS = "images.json"  # digests of a training's inputs by image
NAMES = {  # phrases for settings that hold digests
    "weights": "the weights of --model",
    "start": "the weights of --model",
    "network.start": "the weights of --model",
    "backbone.weights": "the weights of --model",
    "walk.weights": "the weights of --weights",
    "network.weights": "the weights of --weights",
    "images.photographs": "the photographs",
    "images.labels": "the images' labels",
    "images.seeds": "the seeds",
    "images.pictures": "the label pictures",
    "images.saliency": "the saliency maps",
    "validation.photographs": "the validation photographs",
    "validation.labels": "the labels of the validation images",
}


class SettingsFolder:
    """Folder that records its settings and refuses content of other settings.

    Args:
        path: folder; `prepare` creates it.
    """

    what: ClassVar[str]  # name of the content in messages

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._settings: dict[str, Any] = {}
        self._inputs: Inputs | None = None
        self._digest: str | None = None  # digest of the settings
        self._open = False  # settings are not written yet
        self._overwrite = False

    def prepare(self, settings: Mapping[str, Any], *, overwrite: bool = False, inputs: Inputs | None = None) -> Self:
        """Create the folder for content of these settings, or continue one that has the same settings.

        `write_settings` writes them: a run that makes nothing leaves the folder free for other settings.

        Args:
            settings: plain data; weights and files by their digests, never by their paths.
            overwrite: replace content of other settings instead of raising an error.
            inputs: digests of the inputs by image, for messages; their digests belong to the settings, too.

        Returns:
            This folder.

        Raises:
            InputError: the folder holds content of other settings, or cannot be created.
        """
        self._settings, self._inputs = json.loads(json.dumps(dict(settings))), inputs
        self._open, self._overwrite, self._digest = True, overwrite, None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(self.path)!r} cannot be made ({error.strerror}).") from None
        self._has_same_settings()
        return self

    @property
    def is_replaced(self) -> bool:
        """True if the folder holds content of other settings, which `write_settings` will remove."""
        return self._open and self._overwrite and (self.path / SETTINGS).exists() and not self._has_same_settings()

    def _has_same_settings(self) -> bool:
        """Return whether the folder's settings are these ones; False also where it has none.

        Raises:
            InputError: they differ and are not to be overwritten.
        """
        if not (self.path / SETTINGS).exists():
            return False
        here, before = _flatten(self._settings), _flatten(self.read_settings())
        differing = sorted(k for k in {*before, *here} if before.get(k) != here.get(k))
        if differing and not self._overwrite:
            difference = self._describe_difference(differing, before, here)
            raise InputError(
                f"{str(self.path)!r} holds {self.what} of other settings: {difference}; "
                "--overwrite makes it anew, and another --out keeps it."
            )
        return not differing

    def _describe_difference(self, differing: list[str], before: Mapping[str, Any], here: Mapping[str, Any]) -> str:
        """Describe which settings differ, with both values of the first one that is not a digest."""
        of_images = [key for key in differing if key.startswith("images.")]
        differences = (
            self._inputs.describe_differences(read_inputs(self.path)) if of_images and self._inputs is not None else []
        )
        left = [key for key in differing if not (differences and key in of_images)]
        if not left:
            return "; ".join(differences)
        names = list(dict.fromkeys(get_setting_name(key) for key in left))
        text = f"{', '.join(names)} {'differs' if len(left) == 1 and not names[0].startswith('the w') else 'differ'}"
        plain = [key for key in left if get_setting_name(key) == key]
        if plain:
            text += f" ({plain[0]}: {before.get(plain[0])!r} there, {here.get(plain[0])!r} now)"
        return "; ".join([text, *differences])

    def read_settings(self) -> dict[str, Any]:
        """Read the settings of the content.

        Raises:
            InputError: the folder has no readable settings.
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

    def write_settings(self) -> None:
        """Write the settings, when the first result is about to be saved; remove content of other settings.

        Raises:
            InputError: the folder cannot be written, or another process has written other settings.
        """
        if self._open:
            if not self._has_same_settings():
                if (self.path / SETTINGS).exists():
                    self.clear()
                if self._inputs is not None:
                    write_inputs(self.path, self._inputs)
                text = json.dumps(self._settings, indent=2) + "\n"
                write_atomically(str(self.path / SETTINGS), lambda f: f.write(text.encode()))
            self._open = False

    def clear(self) -> None:
        """Remove content of other settings."""


def read_inputs(folder: Path) -> Inputs:
    """Read the digests of a folder's inputs; empty if it records none."""
    try:
        found = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Inputs({})
    return Inputs(found) if isinstance(found, dict) else Inputs({})


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """Write the digests of a folder's inputs.

    Raises:
        InputError: the folder cannot be written.
    """
    text = json.dumps(inputs.tables) + "\n"
    write_atomically(str(folder / INPUTS), lambda f: f.write(text.encode()))


def get_setting_name(key: str) -> str:
    """Return the phrase for a setting in messages; settings that are no digests keep their key.

    >>> get_setting_name("weights"), get_setting_name("seeds.weights"), get_setting_name("walk.beta")
    ('the weights of --model', "the weights of the seeds' model", 'walk.beta')
    """
    if key in NAMES:
        return NAMES[key]
    return "the weights of the seeds' model" if key.startswith("seeds.") and key.endswith("weights") else key


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{k}": v for k, v in _flatten(value).items()} if isinstance(value, dict) else {name: value}
    return flat
