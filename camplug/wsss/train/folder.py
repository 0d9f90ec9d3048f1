"""Folder of a training and the digests of its inputs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.identity import Inputs, hash_names, make_label_table, make_photograph_table
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.store.result_folder import check_digests
from camplug.wsss.store.settings_folder import INPUTS, SETTINGS, SettingsFolder
from camplug.wsss.train.lengthen import lengthen_training

CHECKPOINTS = "checkpoints"


class TrainingFolder(SettingsFolder):
    """Folder of a training with labels, checkpoints, losses and the network file."""

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
        """Create the folder of a training, or open it if settings and images are the same.

        Args:
            settings: plain data; see `SettingsFolder.prepare`.
            data: images.
            tables: digests of all inputs by image name; see `Inputs`.
            file: path of the network file.
            span: key of the settings that contains the epochs.
            steady: see `lengthen_training`.
            overwrite: replace a training of other settings; by default it raises.

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
        """Return whether this training has written its file."""
        return file.exists() and not self.is_replaced

    @override
    def clear(self) -> None:
        """Remove another training; label pictures stay, since each records its inputs."""
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
        for file in (*self.path.glob("*.pt"), self.path / INPUTS):
            file.unlink(missing_ok=True)


def compute_tables(data: SegmentationData) -> dict[str, dict[str, str]]:
    """Compute the digests of photographs and image labels by image name."""
    return {"photographs": make_photograph_table(data), "labels": make_label_table(data)}


def find_labelled(labels: LabelFolder, data: SegmentationData) -> tuple[list[int], list[tuple[str, str]]]:
    """Find the images with a label picture of their photograph.

    Args:
        labels: folder of label pictures.
        data: images.

    Returns:
        Numbers of these images, and the names of the others with the reasons.
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


def describe_labels(source: SeedFolder | Path, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of labels as stored in the label folder and in the training folder.

    Args:
        source: seeds to make labels from, or a folder of ready-made labels.
        settings: settings of making labels.

    Raises:
        InputError: the folder of labels does not exist.
    """
    if isinstance(source, SeedFolder):
        made = {**settings, "seeds": source.read_settings() if (source.path / SETTINGS).exists() else {}}
        return made, made
    if not source.is_dir():
        raise InputError(f"there is no folder of labels {str(source)!r}.")
    return {}, describe_classes(source)


def describe_classes(labels: Path) -> dict[str, Any]:
    """Return the class names of a folder of label pictures, None where it does not record them."""
    known = LabelFolder(labels).read_settings() if (labels / SETTINGS).exists() else {}
    return {"classes": known.get("classes")}
