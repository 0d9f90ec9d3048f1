"""Command `camplug evaluate`: scores of seeds or label pictures against masks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

import camplug
from camplug.cli import common
from camplug.cli.option_groups import DataOptions
from camplug.cli.options import add_options, read_options
from camplug.cli.score_report import show_report, write_report
from camplug.errors import InputError
from camplug.metrics import Convention, Scores, ThresholdSweep
from camplug.settings import apply_values

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData

Broken = list[tuple[str, str]]


@dataclass(frozen=True)
class EvaluateOptions:
    """Threshold, masks and report.

    Raises:
        InputError: two thresholds; a report that cannot be written.
    """

    convention: Annotated[
        Convention,
        typer.Option(help="mIoU over the classes that are present (in truth or result), all, or in the truth."),
    ] = "present"
    threshold: Annotated[
        float | None,
        typer.Option(help="Background threshold of seeds in [0, 1).", show_default="the best on these very images"),
    ] = None
    threshold_from: Annotated[
        Path | None, typer.Option(help="Take the threshold that was best in this report (.json) of another split.")
    ] = None
    mask_values: Annotated[
        str | None,
        typer.Option(help="Meaning of mask values, such as 255=crack,0=background.", show_default="class numbers"),
    ] = None
    ignore_as: Annotated[
        Literal["background"] | None,
        typer.Option(help="background counts pixels of 255 in label pictures as background.", show_default="refuse"),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Report to write (.json); the plot of seeds goes beside it.", show_default="none"
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.threshold_from is not None:
            raise InputError("--threshold and --threshold-from exclude each other; give one.")
        if self.out is None:
            return
        if self.out.suffix.lower() != ".json":
            raise InputError(f"{str(self.out)!r}: a report is a .json file.")
        if not self.out.parent.is_dir():
            raise InputError(f"{str(self.out)!r} cannot be written: there is no folder {str(self.out.parent)!r}.")

    def check_results(self, results: Path, holds: str) -> None:
        """Raise `InputError` for an option that has no effect on seeds or on label pictures."""
        if holds != "seeds" and (self.threshold is not None or self.threshold_from is not None):
            raise InputError(f"{str(results)!r} holds label pictures, which have no threshold; leave it out.")
        if holds == "seeds" and self.ignore_as is not None:
            raise InputError(f"{str(results)!r} holds seeds, which leave no pixel open; leave --ignore-as out.")


GROUPS = DataOptions(), EvaluateOptions()


@add_options(*GROUPS)
def evaluate(
    results: Annotated[Path, typer.Argument(help="Folder of seeds (.npz), or of label pictures (.png).")],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            help="Class names to average over, separated by commas or repeated, and background.", show_default="all"
        ),
    ] = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Score seeds or label pictures: IoU, precision, recall, false discovery rate, mIoU, and mIoU over thresholds.

    Images without a seed, label picture or mask are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.wsss.data import open_data
        from camplug.wsss.store.identity import hash_names, hash_photographs

        values = read_options(given, None, *GROUPS)
        options, images = apply_values(EvaluateOptions(), values), apply_values(DataOptions(), values)
        dataset = open_data(images.get_data(), images.split, mask_values=options.mask_values)
        if not dataset.has_masks:
            raise InputError(f"{images.data!r} has no masks to compare with.")
        averaged = find_classes(classes, ["background", *dataset.classes])
        holds, made_with = find_results(results)
        options.check_results(results, holds)
        if holds == "seeds":  # labels of some of the classes are scored
            check_classes(made_with, dataset.classes)
        report: dict[str, Any] = {
            "results": str(results),
            "data": images.data,
            "split": images.split,
            "images_listed": len(dataset),
            "list_sha256": hash_names(dataset),
            "photographs_sha256": hash_photographs(dataset),
            "convention": options.convention,
            "camplug": camplug.__version__,
            holds: made_with,
        }
        score = _score_seeds if holds == "seeds" else _score_labels
        broken = score(report, results, dataset, options, averaged)
        report["broken"] = [{"image": name, "error": error} for name, error in broken]
        if options.out is not None:
            write_report(report, options.out)
        if as_json:
            common.print_json(report)
        else:
            show_report(report)
        common.show_broken(broken)
        if broken:
            raise typer.Exit(1)


def _score_seeds(
    report: dict[str, Any], results: Path, data: SegmentationData, options: EvaluateOptions, averaged: list[int]
) -> Broken:
    """Add the scores of seeds to a report; return the broken images."""
    from camplug.wsss.seeds import SeedFolder, list_thresholds, score_seeds

    value, origin = read_threshold(options.threshold, options.threshold_from, report["photographs_sha256"])
    with common.show_progress("evaluating", len(data)) as advance:
        sweep, broken = score_seeds(SeedFolder(results), data, list_thresholds(value), advance)
    best = sweep.best(options.convention, averaged)[0]
    value = best if value is None else value
    groups = {
        str(group): {
            "images": sweep.images[group],
            "miou": compute_group_miou(sweep, group, value, options.convention, averaged),
        }
        for group in sorted(sweep.groups)
    }
    report |= {
        "threshold": value,
        "threshold_chosen": origin,
        "best_threshold_here": best,
        "sweep": sweep.as_dict(options.convention, averaged),
        "by_number_of_classes": groups,
        "images_scored": len(data) - len(broken),
        **Scores.of(sweep.at(value), ["background", *data.classes], averaged).as_dict(),
    }
    return broken


def _score_labels(
    report: dict[str, Any], results: Path, data: SegmentationData, options: EvaluateOptions, averaged: list[int]
) -> Broken:
    """Add the scores of label pictures to a report; return the broken images."""
    from camplug.wsss.seeds import score_labels

    with common.show_progress("evaluating", len(data)) as advance:
        matrix, broken = score_labels(results, data, advance, ignore_as=options.ignore_as)
    scores = Scores.of(matrix.matrix, ["background", *data.classes], averaged)
    report |= {"images_scored": len(data) - len(broken), **scores.as_dict()}
    return broken


def find_classes(texts: list[str] | None, names: list[str]) -> list[int]:
    """Return indices of the classes to average over; background is always among them.

    Args:
        texts: names separated by commas; a text that is a class's name stands for it, commas or not.
        names: the background and the classes.

    Raises:
        InputError: a name that the data does not have.
    """
    if not texts:
        return list(range(len(names)))
    wanted = []
    for text in texts:
        wanted += [text] if text in names else [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise InputError(
            f"--classes {','.join(texts)!r}: the data has {', '.join(names[1:])}; a name with commas takes "
            "an option --classes of its own."
        )
    return sorted({0, *(names.index(name) for name in wanted)})


def find_results(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return whether a folder holds "seeds" or "labels", and its settings (empty for label pictures without them).

    Raises:
        InputError: neither.
    """
    from camplug.wsss.seeds import SeedFolder
    from camplug.wsss.store.settings_folder import SETTINGS

    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}.")
    if (folder / SETTINGS).exists():
        settings = SeedFolder(folder).read_settings()
        if settings.get("holds") == "instances":
            raise InputError(f"{str(folder)!r} holds instances; give a folder of seeds or of label pictures.")
        return ("labels" if settings.get("holds") == "labels" else "seeds"), settings
    if next(folder.rglob("*.png"), None) is not None:
        return "labels", {}
    raise InputError(f"{str(folder)!r} holds neither seeds ({SETTINGS}, made by `camplug seeds`) nor label PNGs.")


def check_classes(settings: dict[str, Any], classes: tuple[str, ...], what: str = "seeds") -> None:
    """Raise `InputError` if seeds or labels lack a class of the data; the order does not matter.

    Args:
        settings: settings of their folder, which may name its classes.
        classes: classes of the data.
        what: "seeds" or "labels".
    """
    from camplug.wsss.class_names import match_folder_classes

    match_folder_classes(settings, classes, f"the folder of {what}")


def read_threshold(threshold: float | None, report: Path | None, images: str) -> tuple[float | None, str]:
    """Return the background threshold, if one is given directly or by a report, and its origin in words.

    Args:
        threshold: a number, if given.
        report: report of `camplug evaluate`, if given.
        images: digest of the photographs to score.

    Raises:
        InputError: not a number from 0 to below 1; the report cannot be used.
    """
    here = "best on these very images, with their masks: optimistic"
    if report is None:
        value, how = threshold, here if threshold is None else "given"
    else:
        try:
            other = json.loads(report.read_text(encoding="utf-8"))
            value = float(other["best_threshold_here"])
            how = (
                here
                if other["photographs_sha256"] == images
                else f"best on {other['split'] or other['data']} ({report})"
            )
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{str(report)!r} is no report of `camplug evaluate` on seeds.") from None
    if value is not None and not 0 <= value < 1:
        raise InputError(f"a threshold of {value:g} is not possible; give 0 or more, and less than 1.")
    return value, how


def compute_group_miou(
    sweep: ThresholdSweep, group: int, threshold: float, convention: Convention, classes: list[int]
) -> float | None:
    """Return the mIoU of the images with a number of classes, None if it is undefined."""
    from camplug.metrics import miou

    at = int(np.abs(sweep.thresholds - threshold).argmin())
    value = float(miou(sweep.matrices_of(group)[at], convention, classes))
    return None if np.isnan(value) else value
