"""`camplug evaluate`: scores of seeds or label pictures against masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import camplug
from camplug.cli import common
from camplug.cli.score_report import show_report, write_report
from camplug.errors import InputError

CONVENTIONS = ("present", "all", "truth")


def evaluate(  # noqa: PLR0917
    results: Annotated[Path, typer.Argument(help="Folder of seeds (.npz), or of label pictures (.png).")],
    data: Annotated[str, typer.Option(help="voc:PATH, coco:PATH, folder:PATH, scenes:COUNT, or a path; with masks.")],
    split: common.Split = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            help="Class names to average over, separated by commas or repeated, and background.", show_default="all"
        ),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="mIoU over the classes that are present (in truth or result), all, or in the truth.")
    ] = "present",
    threshold: Annotated[
        float | None,
        typer.Option(help="Of seeds: up to here a pixel is background.", show_default="the best on these very images"),
    ] = None,
    threshold_from: Annotated[
        Path | None, typer.Option(help="Take the threshold that was best in this report (.json) of another split.")
    ] = None,
    mask_values: Annotated[
        str | None,
        typer.Option(help="What values of masks mean, such as 255=crack,0=background.", show_default="class numbers"),
    ] = None,
    ignore_as: Annotated[
        str | None,
        typer.Option(help="Of label pictures: background takes pixels of 255 for background.", show_default="refuse"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Report to write (.json); the plot of seeds goes beside it.", show_default="none"
        ),
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Score seeds or label pictures: IoU, precision, recall, false discovery rate, mIoU, and mIoU over thresholds.

    Images without a seed, label picture or mask are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.metrics import Scores
        from camplug.wsss.data import open_data
        from camplug.wsss.seeds import SeedFolder, score_labels, score_seeds
        from camplug.wsss.store.identity import hash_photographs
        from camplug.wsss.store.jobs import hash_names

        thresholds = [one for one in (threshold, threshold_from) if one is not None]
        check_options(convention, thresholds, ignore_as, output)
        dataset = open_data(data, split, mask_values=mask_values)
        if not dataset.has_masks:
            raise InputError(f"{data!r} has no masks to compare with.")
        names = ["background", *dataset.classes]
        chosen = find_classes(classes, names)
        holds, made_with = find_results(results)
        seeds = SeedFolder(results) if holds == "seeds" else None
        if seeds is None and thresholds:
            raise InputError(f"{str(results)!r} holds label pictures, which have no threshold; leave it out.")
        if seeds is not None and ignore_as is not None:
            raise InputError(f"{str(results)!r} holds seeds, which leave no pixel open; leave --ignore-as out.")
        check_classes(made_with, dataset.classes, holds)
        report: dict[str, Any] = {
            "results": str(results),
            "data": data,
            "split": split,
            "images_listed": len(dataset),
            "list_sha256": hash_names(dataset),
            "photographs_sha256": hash_photographs(dataset),
            "convention": convention,
            "camplug": camplug.__version__,
            holds: made_with,
        }
        value, how = read_threshold(threshold, threshold_from, report["photographs_sha256"])
        sweep = None
        with common.show_progress("evaluating", len(dataset)) as advance:
            if seeds is not None:
                sweep, broken = score_seeds(seeds, dataset, make_grid(value), advance)
            else:
                matrix, broken = score_labels(results, dataset, advance, ignore_as=ignore_as)  # type: ignore[arg-type]
        if len(broken) == len(dataset):
            raise InputError(f"none of the {len(dataset)} images could be scored; the first one: {broken[0][1]}")
        if seeds is None or sweep is None:
            scores = Scores.of(matrix.matrix, names, chosen)
        else:
            best = sweep.best(convention, chosen)[0]  # type: ignore[arg-type]
            value = best if value is None else value
            scores = Scores.of(sweep.at(value), names, chosen)
            report |= {
                "threshold": value,
                "threshold_chosen": how,
                "best_threshold_here": best,
                "sweep": {
                    "thresholds": sweep.thresholds.tolist(),
                    "miou": replace_nan(sweep.scores(convention, chosen)),  # type: ignore[arg-type]
                },
                "by_number_of_classes": {
                    str(group): {
                        "images": sweep.images[group],
                        "miou": replace_nan(compute_group_miou(sweep, group, value, convention, chosen)),
                    }
                    for group in sorted(sweep.groups)
                },
            }
        report |= {"images_scored": len(dataset) - len(broken), **scores.as_dict()}
        report["broken"] = [{"image": name, "error": error} for name, error in broken]
        if output is not None:
            write_report(report, output)
        if as_json:
            common.print_json(report)
        else:
            show_report(report)
        common.show_broken(broken)
        if broken:
            raise typer.Exit(1)


def check_options(convention: str, thresholds: list[Any], ignore_as: str | None, output: Path | None) -> None:
    """Raise `InputError` for an option out of its range, two thresholds or a report that cannot be written."""
    if convention not in CONVENTIONS:
        raise InputError(f"--convention {convention!r}; allowed are {', '.join(CONVENTIONS)}.")
    if len(thresholds) > 1:
        raise InputError("--threshold and --threshold-from exclude each other; give one.")
    if ignore_as not in (None, "background"):
        raise InputError(f"--ignore-as {ignore_as!r}; allowed is background.")
    if output is not None:
        check_report_path(output)


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
        return ("labels" if settings.get("holds") == "labels" else "seeds"), settings
    if next(folder.rglob("*.png"), None) is not None:
        return "labels", {}
    raise InputError(f"{str(folder)!r} holds neither seeds ({SETTINGS}, made by `camplug seeds`) nor label PNGs.")


def check_report_path(report: Path) -> None:
    """Raise `InputError` if the report is no .json file or its folder does not exist."""
    if report.suffix.lower() != ".json":
        raise InputError(f"{str(report)!r}: a report is a .json file.")
    if not report.parent.is_dir():
        raise InputError(f"{str(report)!r} cannot be written: there is no folder {str(report.parent)!r}.")


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


def make_grid(threshold: float | None) -> NDArray[np.float64]:
    """Return the thresholds 0.01 to 0.99, and one more if it is not among them."""
    grid = np.arange(1, 100) / 100
    if threshold is None or np.abs(grid - threshold).min() <= 1e-9:
        return grid
    return np.sort(np.append(grid, threshold))


def compute_group_miou(sweep: Any, group: int, threshold: float, convention: Any, classes: list[int]) -> float:
    """Return the mIoU of the images with a number of classes."""
    from camplug.metrics import miou

    at = int(np.abs(sweep.thresholds - threshold).argmin())
    return float(miou(sweep.matrices_of(group)[at], convention, classes))


def replace_nan(values: Any) -> Any:
    """Return numbers for JSON, None in place of NaN."""
    if np.ndim(values) == 0:
        return None if np.isnan(values) else float(values)
    return [replace_nan(v) for v in values]
