"""Extension of a finished training by more epochs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.wsss.store.processes import get_shard
from camplug.wsss.store.settings_folder import SETTINGS, SettingsFolder


def lengthen_training(
    folder: SettingsFolder, settings: Mapping[str, Any], file: Path, *, span: str = "training", steady: bool = False
) -> None:
    """Update the settings of a training folder where only the epochs increase, so that training resumes.

    The network file of the shorter training is renamed, to "classifier_5_epochs.pt" for instance.

    Args:
        folder: folder of the training.
        settings: new settings.
        file: path of the network file.
        span: key of the settings that contains the epochs.
        steady: the first epochs do not depend on their total number.

    Raises:
        InputError: more epochs would change the finished ones, or several processes share the training.
    """
    if not (folder.path / SETTINGS).exists():
        return
    before, here = folder.read_settings(), json.loads(json.dumps(dict(settings)))
    epochs, now = (found.get(span, {}).get("epochs") for found in (before, here))
    if None in (epochs, now) or now <= epochs or {**before, span: {**before[span], "epochs": now}} != here:
        return
    if not steady or get_shard()[1] > 1:
        done = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        why = "and several processes cannot lengthen it"
        if not steady:
            why = "whose learning rate (or a weight of its losses) depends on their number"
        start = f"--model {file} --out ANOTHER goes on from its result" if span == "span" else "give another --out"
        raise InputError(
            f"{str(folder.path)!r} holds a training of {done}, {why}, so it cannot become one of {now}; "
            f"{start}, and --overwrite begins anew."
        )
    if file.exists():
        file.rename(file.with_stem(f"{file.stem}_{epochs}_epochs"))
    text = json.dumps(here, indent=2) + "\n"
    write_atomically(str(folder.path / SETTINGS), lambda f: f.write(text.encode()))
