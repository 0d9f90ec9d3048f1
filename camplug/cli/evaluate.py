"""`camplug evaluate`: seeds or label pictures against masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import camplug
from camplug.cli import common
from camplug.errors import InputError

CONVENTIONS = ("present", "all", "truth")


def evaluate(  # noqa: PLR0917
    results: Annotated[Path, typer.Argument(help="Folder of seeds (.npz), or of label pictures (.png).")],
    data: Annotated[str, typer.Option(help="voc:PATH, coco:PATH, folder:PATH, scenes:COUNT, or a path; with masks.")],
    split: common.Split = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class names to average over, separated by commas, and background.", show_default="all"),
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
    with common.plain_errors():
        from camplug.metrics import Scores
        from camplug.wsss.data import open_data
        from camplug.wsss.jobs import list_sha256
        from camplug.wsss.seeds import SeedFolder, score_labels, score_seeds

        if convention not in CONVENTIONS:
            raise InputError(f"--convention {convention!r}; allowed are {', '.join(CONVENTIONS)}.")
        if threshold is not None and threshold_from is not None:
            raise InputError("--threshold and --threshold-from exclude each other; give one.")
        if output is not None:
            check_place(output)
        dataset = open_data(data, split)
        if not dataset.has_masks:
            raise InputError(f"{data!r} has no masks to compare with.")
        names = ["background", *dataset.classes]
        chosen = chosen_classes(classes, names)
        holds, made_with = kind(results)
        seeds = SeedFolder(results) if holds == "seeds" else None
        if seeds is None and (threshold is not None or threshold_from is not None):
            raise InputError(f"{str(results)!r} holds label pictures, which have no threshold; leave it out.")
        check_classes(made_with, dataset.classes, holds)
        report: dict[str, Any] = {
            "results": str(results),
            "data": data,
            "split": split,
            "images_listed": len(dataset),
            "list_sha256": list_sha256(dataset),
            "convention": convention,
            "camplug": camplug.__version__,
            holds: made_with,
        }
        value, how = given_threshold(threshold, threshold_from, report["list_sha256"])
        sweep = None
        with common.progress("evaluating", len(dataset)) as advance:
            if seeds is not None:
                sweep, broken = score_seeds(seeds, dataset, grid_with(value), advance)
            else:
                matrix, broken = score_labels(results, dataset, advance)
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
                    "miou": none_for_nan(sweep.scores(convention, chosen)),  # type: ignore[arg-type]
                },
                "by_number_of_classes": {
                    str(group): {
                        "images": sweep.images[group],
                        "miou": none_for_nan(by_group(sweep, group, value, convention, chosen)),
                    }
                    for group in sorted(sweep.groups)
                },
            }
        report |= {"images_scored": len(dataset) - len(broken), **scores.as_dict()}
        report["broken"] = [{"image": name, "error": error} for name, error in broken]
        if output is not None:
            write(report, output)
        if as_json:
            common.print_json(report)
        else:
            show(report)
        common.show_broken(broken)
        if broken:
            raise typer.Exit(1)


def chosen_classes(text: str | None, names: list[str]) -> list[int]:
    """Indices of the classes to average over, from names separated by commas; background is always among them.

    Raises:
        InputError: a name that the data does not have.
    """
    if text is None:
        return list(range(len(names)))
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise InputError(f"--classes {text!r}: the data has {', '.join(names[1:])}.")
    return sorted({0, *(names.index(name) for name in wanted)})


def kind(folder: Path) -> tuple[str, dict[str, Any]]:
    """Whether a folder holds "seeds" or "labels", and what they were made with (label pictures may not say it).

    Raises:
        InputError: neither.
    """
    from camplug.wsss.seeds import SeedFolder
    from camplug.wsss.settled import SETTINGS

    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}.")
    if (folder / SETTINGS).exists():
        settings = SeedFolder(folder).settings()
        return ("labels" if settings.get("holds") == "labels" else "seeds"), settings
    if next(folder.rglob("*.png"), None) is not None:
        return "labels", {}
    raise InputError(f"{str(folder)!r} holds neither seeds ({SETTINGS}, made by `camplug seeds`) nor label PNGs.")


def check_place(report: Path) -> None:
    """Refuse a place for the report before anything is scored.

    Raises:
        InputError: not a .json file, or in a folder that is not there.
    """
    if report.suffix.lower() != ".json":
        raise InputError(f"{str(report)!r}: a report is a .json file.")
    if not report.parent.is_dir():
        raise InputError(f"{str(report)!r} cannot be written: there is no folder {str(report.parent)!r}.")


def check_classes(settings: dict[str, Any], classes: tuple[str, ...], what: str = "seeds") -> None:
    """Refuse seeds (or labels) without a class of the data; their order does not matter.

    Args:
        settings: of their folder, which may name its classes.
        classes: of the data.
        what: the folder holds.

    Raises:
        InputError: so it is.
    """
    from camplug.wsss.class_names import order_in

    order_in(settings, classes, f"the folder of {what}")


def given_threshold(threshold: float | None, report: Path | None, images: str) -> tuple[float | None, str]:
    """The background threshold, if one is given or another report says it; and in words how it was chosen.

    Args:
        threshold: the one given.
        report: of another split.
        images: the hash of the list of images that are scored now.

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
            how = here if other["list_sha256"] == images else f"best on {other['split'] or other['data']} ({report})"
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{str(report)!r} is no report of `camplug evaluate` on seeds.") from None
    if value is not None and not 0 <= value < 1:
        raise InputError(f"a threshold of {value:g} is not possible; give 0 or more, and less than 1.")
    return value, how


def grid_with(threshold: float | None) -> NDArray[np.float64]:
    """The thresholds .01 to .99, and one more where it is not among them."""
    grid = np.arange(1, 100) / 100
    if threshold is None or np.abs(grid - threshold).min() <= 1e-9:
        return grid
    return np.sort(np.append(grid, threshold))


def by_group(sweep: Any, group: int, threshold: float, convention: Any, classes: list[int]) -> float:
    """mIoU of the images with this number of classes."""
    from camplug.metrics import miou

    at = int(np.abs(sweep.thresholds - threshold).argmin())
    return float(miou(sweep.matrices_of(group)[at], convention, classes))


def none_for_nan(values: Any) -> Any:
    """Numbers as JSON takes them."""
    if np.ndim(values) == 0:
        return None if np.isnan(values) else float(values)
    return [none_for_nan(v) for v in values]


def write(report: dict[str, Any], path: Path) -> None:
    """Write the report, and for seeds the plot of mIoU over thresholds beside it."""
    from camplug.explain.explanation import save_picture, write_atomically
    from camplug.show import curves

    text = json.dumps(report, indent=2) + "\n"
    write_atomically(str(path), lambda file: file.write(text.encode()))
    if "sweep" in report:
        line = [np.nan if v is None else 100 * v for v in report["sweep"]["miou"]]
        title = f"mIoU ({report['convention']}), {Path(report['results']).name}, {report['split'] or report['data']}"
        picture = curves(
            report["sweep"]["thresholds"],
            {"": line},
            x_label="background threshold",
            y_label="mIoU [%]",
            title=title,
            mark=report["threshold"],
        )
        save_picture(picture, str(path.with_suffix(".png")))


def miou_line(report: dict[str, Any]) -> str:
    """Return the mean IoU by each convention, the report's own first, with the number of classes that it averages.

    >>> miou_line(
    ...     {
    ...         "convention": "present",
    ...         "miou": {"present": 0.369, "all": 0.0527, "truth": None},
    ...         "classes_in_mean": {"present": 3, "all": 21, "truth": 0},
    ...     }
    ... )
    'mIoU over 3 of 21 classes: 36.9 (present); by the other conventions: 5.3 (all), - (truth, 0 of 21 classes)'
    """
    counts, own = report["classes_in_mean"], report["convention"]
    miou = {k: "-" if v is None else f"{100 * v:.1f}" for k, v in report["miou"].items()}
    every = counts["all"]
    over = {k: f"{every}" if n == every else f"{n} of {every}" for k, n in counts.items()}
    others = [
        f"{v} ({k}" + ("" if counts[k] in (every, counts[own]) else f", {over[k]} classes") + ")"
        for k, v in miou.items()
        if k != own
    ]
    return f"mIoU over {over[own]} classes: {miou[own]} ({own}); by the other conventions: {', '.join(others)}"


def show(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    from rich.table import Table

    head = f"{report['results']}: {report['images_scored']} of {report['images_listed']} images"
    if "threshold" in report:
        head += f"; threshold {report['threshold']:.4g}, {report['threshold_chosen']}"
    common.out.print(common.escaped(head), soft_wrap=True)
    table = Table("class")
    for column in ("IoU", "precision", "recall", "FDR"):
        table.add_column(column, justify="right")
    averaged = set(report["averaged_over"])
    for name, row in report["per_class"].items():
        cells = [f"{100 * v:.1f}" if v is not None else "-" for v in row.values()]
        if name in averaged or any(v is not None for v in row.values()):
            table.add_row(common.escaped(name), *cells, style=None if name in averaged else "dim")
    common.out.print(table)
    common.out.print(miou_line(report), soft_wrap=True)
    for group, row in report.get("by_number_of_classes", {}).items():
        value = "-" if row["miou"] is None else f"{100 * row['miou']:.1f}"
        of = {"1": "1 class", "3": "3 or more classes"}.get(group, f"{group} classes")
        common.out.print(f"  images of {of}: {value} ({row['images']} of them)", soft_wrap=True)
