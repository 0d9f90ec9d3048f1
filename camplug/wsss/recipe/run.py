"""Run the unfinished stages of a recipe, with a report after each."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.wsss.class_names import renumber_data
from camplug.wsss.classifier.checkpoint import CLASSIFIER_FILE
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab.corrected import CorrectedLabels
from camplug.wsss.recipe.cache import Cache, count_bytes
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.data import VARIABLE, ImageList
from camplug.wsss.recipe.graph import RecipeGraph
from camplug.wsss.recipe.image_checks import check_results
from camplug.wsss.recipe.plan import make_rows
from camplug.wsss.recipe.recipe import Recipe
from camplug.wsss.recipe.report import write_report
from camplug.wsss.recipe.stage import Data, Stage, get_stage
from camplug.wsss.recipe.stages.evaluate import list_averaged
from camplug.wsss.store.identity import hash_file
from camplug.wsss.store.jobs import is_passing
from camplug.wsss.store.network_file import NETWORK
from camplug.wsss.store.processes import exchange, get_shard, wait_for_processes
from camplug.wsss.store.result_folder import link_or_copy
from camplug.wsss.train.progress import ProgressCallback


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    estimate: bool = False,
    watch: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Run all stages of a recipe that are not finished, and write `out`/report.html, .json and .md after each.

    A call that was stopped is continued by the same call and ends with the same results. Results are kept in
    `out`/cache by a hash of everything they depend on, so that after a change only what depends on it is made again.
    Under torchrun every process makes the same call; they share the images and batches of every stage.

    Args:
        recipe: see `camplug.wsss.recipe.read_recipe`.
        out: folder of the run.
        device: device of the networks.
        workers: number of processes that load images in trainings.
        estimate: measure steps of the stages first, as `plan_recipe` does, to give `watch` an estimate of the time;
            several processes measure nothing.
        watch: receiver of progress messages.

    Returns:
        The report, as in report.json. The trained segmentation network is `out`/network.pt, the classifier that
        predicts its labels (`segment.labels`) `out`/classifier.pt.

    Raises:
        InputError: missing data or files, or an error of a stage.
        KeyboardInterrupt: Ctrl-C.
    """
    watch, out = ProgressCallback() if watch is None else watch, Path(out)
    data = match_lists(recipe, {name: open_list(name, part) for name, part in recipe.data.items()})
    graph = RecipeGraph(recipe, data)
    stages = graph.stages
    cache = Cache(out, data)
    _check_inputs(stages, cache, data)
    _make_folder(cache.root, out)
    rank, world = get_shard()
    any_share = frozenset(name for name, part in recipe.data.items() if part.allow_missing)
    context = StageContext(cache, data, device, workers, (rank, world), watch, any_share)
    wait_for_processes("begin")  # before one makes results that another would find
    rows = make_rows(recipe, stages, cache, device if estimate and world == 1 else None, watch.measure)
    with watch.run({row.stage: row.seconds for row in rows if row.state != "made before"}):
        for number, stage in enumerate(stages, 1):
            if _is_finished(cache.load_document(stage)):
                watch.done(f"[{number}/{len(stages)}] {stage.name}: made before")
                continue
            with watch.stage(stage.name, number, len(stages)):
                _run_stage(stage, context)
            if rank == 0:
                write_report(recipe, stages, cache, out)
    report: dict[str, Any] = {}
    if rank == 0:
        _publish_networks(graph, cache, out)
        report = write_report(recipe, stages, cache, out)
    wait_for_processes("end", needed=False)
    return report


def _check_inputs(stages: Sequence[Stage], cache: Cache, data: Data) -> None:
    """Check files, masks and corrected labels before the first stage runs.

    Raises:
        InputError: a file is missing, no image of a list that is scored has a mask that fits, or no corrected label is
            of an image.
    """
    for stage in stages:
        cache.get_folder(stage)  # raises where files are missing
    left = [stage for stage in stages if cache.load_document(stage) is None and stage.part in data]
    for part in dict.fromkeys(stage.part for stage in left if stage.scores):
        _check_masks(f"data.{part}", data[str(part)])
    for stage in left:
        if (corrected := stage.settings.get("corrected")) is not None:
            with warnings.catch_warnings(action="ignore"):  # the training warns
                CorrectedLabels("", corrected["folder"]).find_images(data[str(stage.part)])


def _check_masks(name: str, data: SegmentationData) -> None:
    error: InputError | None = None
    for i in range(len(data)):
        try:
            data.mask(i)
        except InputError as found:
            error = error or found
        else:
            return
    if error is not None:
        raise InputError(f"{name}: none of the {len(data)} images has a mask that can be used; the first one: {error}")


def _make_folder(path: Path, out: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(out)!r} cannot be made ({error.strerror}).") from None


def open_list(name: str, part: ImageList) -> SegmentationData:
    """Open a list of images.

    Raises:
        InputError: it does not exist, or a variable in it is not set.
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


def match_lists(recipe: Recipe, data: dict[str, SegmentationData]) -> dict[str, SegmentationData]:
    """Return the lists of images with their classes in the order of data.train.

    Raises:
        InputError: a list has other classes.
    """
    classes = data["train"].classes
    for name, one in data.items():
        check_same_classes(f"data.{name}", one.classes, "data.train", classes)
    how = recipe.evaluate.classes
    list_averaged(None if how is None else list(how), ["background", *classes])
    return {name: renumber_data(one, classes, "data.train") for name, one in data.items()}


def check_same_classes(name: str, classes: Sequence[str], other: str, others: Sequence[str]) -> None:
    """Raise InputError unless two lists of images have the same class names, in any order."""
    differing = sorted(set(classes) ^ set(others))
    if differing:
        raise InputError(
            f"{name} has other classes than {other} ({differing[0]!r} is in one of them only); give lists with the "
            "same class names."
        )


def _publish_networks(graph: RecipeGraph, cache: Cache, out: Path) -> None:
    """Give the trained networks of a run names at the top of its folder; remove those of an earlier run."""
    named = {NETWORK: graph.segmenter}
    predicts = graph.recipe.segment.labels == "predicted"
    named[CLASSIFIER_FILE.file] = graph.network if predicts and isinstance(graph.network, Stage) else None
    for name, training in named.items():
        if training is None:
            _remove_published(out / name, graph, cache)
        else:
            link_or_copy(cache.get_folder(training) / get_stage(training.kind).get_file(training), out / name)


def _remove_published(path: Path, graph: RecipeGraph, cache: Cache) -> None:
    """Remove a network that an earlier run has left, unless the recipe reads it; other files of this name stay."""
    read = {Path(file).resolve() for stage in graph.stages for file in stage.files}
    if not path.is_file() or path.resolve() in read:
        return
    digest = hash_file(path)
    if any(
        hash_file(made) == digest for made in cache.root.glob("*/*.pt") if made.stat().st_size == path.stat().st_size
    ):
        path.unlink()


def _run_stage(stage: Stage, context: StageContext) -> None:
    """Run a stage in all processes, and mark it as finished."""
    (rank, world), cache = context.share, context.cache
    folder, before = cache.get_folder(stage), cache.load_spent_seconds(stage)
    start = time.perf_counter()
    try:
        outcome = context.run(stage)
    except BaseException:
        with suppress(InputError):
            if rank == 0:
                cache.save_spent_seconds(stage, before + time.perf_counter() - start)
        raise
    shares = [json.loads(text) for text in exchange(stage.name, json.dumps(outcome))]
    if rank == 0:
        document = join_outcomes(shares)
        document["figures"] |= check_results(stage, context)
        document |= {"seconds": before + time.perf_counter() - start, "bytes": count_bytes(folder), "processes": world}
        cache.save_document(stage, document)
    wait_for_processes("finished")


def _is_finished(document: dict[str, Any] | None) -> bool:
    """Return whether a stage has no image left whose error may pass, such as for want of memory."""
    if document is None:
        return False
    return "made" not in document or not any(is_passing(one["error"]) for one in document["broken"])


def join_outcomes(shares: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the outcomes of all processes as one document."""
    each = "made" in shares[0]
    document: dict[str, Any] = {
        "images": sum(s.get("images", 0) for s in shares) if each else shares[0].get("images", 0),
        "figures": shares[0].get("figures", {}),
    }
    if each:
        document["made"] = sum(s["made"] for s in shares)
    broken = {
        name: error for one in shares for name, error in one.get("broken", [])
    }  # each process of a training reports all of them
    document["broken"] = [{"image": name, "error": error} for name, error in broken.items()]
    return document
