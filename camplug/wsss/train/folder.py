"""The folder of a training, and what tells the images that it learns from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.identity import Inputs, make_label_table, make_photograph_table
from camplug.wsss.store.jobs import hash_names
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.result_folder import check_digests
from camplug.wsss.store.settings_folder import INPUTS, SETTINGS, SettingsFolder
from camplug.wsss.train.lengthen import lengthen_training

CHECKPOINTS = "checkpoints"


class TrainingFolder(SettingsFolder):
    """The folder of a training: its labels, checkpoints and losses, and at last the file of the network."""

    what = "a training"

    def prepare_training(
        self,
        settings: Mapping[str, Any],
        data: SegmentationData,
        tables: Mapping[str, Mapping[str, str]],
        *,
        file: Path,
        span: str = "training",
        steady: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Make the folder for a training of these settings on these images, or go on with one that has the same.

        Args:
            settings: plain data; see `SettingsFolder.prepare`.
            data: the images.
            tables: digests by image name of all that it learns from; see `Inputs`.
            file: of the network.
            span: part of the settings that holds the epochs.
            steady: see `lengthen_training`.
            overwrite: a training of other settings is replaced; by default it is refused.

        Raises:
            InputError: the folder holds another training, or cannot be made.
        """
        inputs = Inputs(tables)
        images = {"count": len(data), "list_sha256": hash_names(data), **inputs.make_digests()}
        wanted = {**settings, "images": images}
        if not overwrite:
            lengthen_training(self, wanted, file, span=span, steady=steady)
        self.prepare(wanted, overwrite=overwrite, inputs=inputs)

    def is_finished(self, file: Path) -> bool:
        """Whether this very training has written its file."""
        return file.exists() and not self.is_replaced

    @override
    def clear(self) -> None:
        """Remove another training; label pictures stay, each of which tells what it was made of."""
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
        for file in (*self.path.glob("*.pt"), self.path / INPUTS):
            file.unlink(missing_ok=True)


def learned_tables(data: SegmentationData) -> dict[str, dict[str, str]]:
    """Return the digests of photographs and image labels, by image name."""
    return {"photographs": make_photograph_table(data), "labels": make_label_table(data)}


def find_labelled(labels: LabelFolder, data: SegmentationData) -> tuple[list[int], list[tuple[str, str]]]:
    """Return the images with a label picture of their photograph, and the names of the others with the reasons.

    Args:
        labels: the label pictures.
        data: the images.
    """
    found, broken = [], []
    for i, name in enumerate(data.ids):
        try:
            if not labels.get_path(name).is_file():
                raise InputError(f"there are no labels {str(labels.get_path(name))!r}.")
            check_digests(labels, data, i)
        except InputError as error:
            broken.append((name, str(error)))
        else:
            found.append(i)
    return found, broken


def labels_told(source: SeedFolder | Path, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what labels are made with: as their own folder keeps it, and as the training does.

    Args:
        source: the seeds that they are made of, or their own folder.
        settings: of making them.

    Raises:
        InputError: there is no folder of labels.
    """
    if isinstance(source, SeedFolder):
        made = {**settings, "seeds": source.read_settings() if (source.path / SETTINGS).exists() else {}}
        return made, made
    if not source.is_dir():
        raise InputError(f"there is no folder of labels {str(source)!r}.")
    return {}, classes_told(source)


def classes_told(labels: Path) -> dict[str, Any]:
    """Return the classes of a folder of label pictures, where it says them; their content is told image by image."""
    known = LabelFolder(labels).read_settings() if (labels / SETTINGS).exists() else {}
    return {"classes": known.get("classes")}
