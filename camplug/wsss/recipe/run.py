"""Run a recipe: the stages that are not finished yet, one after another, and a report after each."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.wsss.class_names import renumber_data
from camplug.wsss.data import SegmentationData
from camplug.wsss.recipe.cache import Cache, bytes_in
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.data import VARIABLE, ImageList
from camplug.wsss.recipe.graph import list_stages
from camplug.wsss.recipe.recipe import Recipe
from camplug.wsss.recipe.report import write_report
from camplug.wsss.recipe.stage import Stage
from camplug.wsss.recipe.stages.evaluate import list_averaged
from camplug.wsss.store.jobs import exchange, share, wait_for_processes
from camplug.wsss.train.progress import ProgressCallback


def run_recipe(
    recipe: Recipe, out: str | Path, *, device: str = "cpu", workers: int = 0, watch: ProgressCallback | None = None
) -> dict[str, Any]:
    """Run all stages of a recipe that are not finished, and write `out`/report.html, .json and .md after each.

    Stopped at any moment, the same call goes on where it was, and ends with the same products. Products are kept in
    `out`/cache by a hash of all that they depend on: after a change only what depends on it is made again. Under
    torchrun every process makes the same call; they share the images and the batches of every stage.

    Args:
        recipe: see `camplug.wsss.recipe.read_recipe`.
        out: folder of the run.
        device: that networks run on.
        workers: processes that load images in trainings.
        watch: is told how it goes.

    Returns:
        The report, as in report.json.

    Raises:
        InputError: data or files that are not there; whatever stops a stage.
        KeyboardInterrupt: it was stopped by Ctrl-C.
    """
    watch, out = ProgressCallback() if watch is None else watch, Path(out)
    data = {name: opened(name, part) for name, part in recipe.data.items()}
    data = checked(recipe, data)
    stages = list_stages(recipe, data)
    cache = Cache(out, data)
    for stage in stages:
        cache.folder(stage)  # files that are missing are told before anything runs
    try:
        cache.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(out)!r} cannot be made ({error.strerror}).") from None
    rank, world = share()
    any_share = frozenset(name for name, part in recipe.data.items() if part.allow_missing)
    work = StageContext(cache, data, device, workers, (rank, world), watch, any_share)
    wait_for_processes("begin")  # before any of them makes what another one would find
    for number, stage in enumerate(stages, 1):
        if cache.done(stage) is not None:
            watch.done(f"[{number}/{len(stages)}] {stage.name}: made before")
            continue
        watch.done(f"[{number}/{len(stages)}] {stage.name} ...")
        _run(stage, work)
        if rank == 0:
            write_report(recipe, stages, cache, out)
    report: dict[str, Any] = {}
    if rank == 0:
        report = write_report(recipe, stages, cache, out)
    wait_for_processes("end", needed=False)
    return report


def opened(name: str, part: ImageList) -> SegmentationData:
    """A list of images.

    Raises:
        InputError: it is not there; a variable that is not set.
    """
    unset = VARIABLE.search(part.data)
    if unset:
        raise InputError(
            f"data.{name}.data names {unset[0]}, which is not set; give the data's folder with --data-root, or set the "
            f"variable: export {unset[1]}=..."
        )
    try:
        return part.open()
    except InputError as error:
        raise InputError(f"data.{name}: {error}") from None


def checked(recipe: Recipe, data: dict[str, SegmentationData]) -> dict[str, SegmentationData]:
    """Return the lists with their classes in the order of data.train, if they belong together.

    Raises:
        InputError: other classes in one than in the others.
    """
    classes = data["train"].classes
    for name, one in data.items():
        differing = sorted(set(one.classes) ^ set(classes))
        if differing:
            raise InputError(
                f"data.{name} has other classes than data.train ({differing[0]!r} is in one of them only); give lists "
                "with the same class names."
            )
    how = recipe.evaluate.classes
    list_averaged(None if how is None else list(how), ["background", *classes])
    return {name: renumber_data(one, classes, "data.train") for name, one in data.items()}


def _run(stage: Stage, work: StageContext) -> None:
    """Run a stage in all processes, and write down that it is finished."""
    (rank, world), cache = work.share, work.cache
    folder, before = cache.folder(stage), cache.spent(stage)
    start = time.perf_counter()
    try:
        told = work.run(stage)
    except BaseException:
        with suppress(InputError):
            if rank == 0:
                cache.spend(stage, before + time.perf_counter() - start)
        raise
    shares = [json.loads(text) for text in exchange(stage.name, json.dumps(told))]
    if rank == 0:
        document = joined(shares)
        document |= {"seconds": before + time.perf_counter() - start, "bytes": bytes_in(folder), "processes": world}
        cache.finish(stage, document)
    wait_for_processes("finished")


def joined(shares: list[dict[str, Any]]) -> dict[str, Any]:
    """What all processes made, as one."""
    each = "made" in shares[0]
    document: dict[str, Any] = {
        "images": sum(s.get("images", 0) for s in shares) if each else shares[0].get("images", 0),
        "figures": shares[0].get("figures", {}),
    }
    broken = {name: error for one in shares for name, error in one.get("broken", [])}  # trainings tell all of them
    document["broken"] = [{"image": name, "error": error} for name, error in broken.items()]
    return document
