"""Options, inputs and tables shared by `camplug explain`, `compare` and `check`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.common import Colour
from camplug.errors import InputError
from camplug.explain.explanation import Explanation
from camplug.images.photo import list_photos
from camplug.images.save import make_file_name, save_picture

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ExplainerOptions:
    """Network and options of an explainer.

    Raises:
        InputError: less than one class.
    """

    model: Annotated[str, typer.Option("--model", "-m", help=common.MODEL_HELP)] = "demo"
    checkpoint: common.Checkpoint = None
    num_classes: common.NumClasses = None
    class_names: Annotated[Path | None, typer.Option(help="Text file with one class name per line.")] = None
    mean: Annotated[Colour | None, typer.Option(help=common.MEAN_HELP)] = None
    std: Annotated[Colour | None, typer.Option(help=common.STD_HELP)] = None
    long_side: common.LongSide = None
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu"
    prompt_options: common.PromptOptions = field(default_factory=common.PromptOptions)
    multi_label: Annotated[bool, typer.Option("--multi-label", help="Probabilities by sigmoid, not softmax.")] = False
    evidence: Annotated[str, typer.Option(help="Evidence for the class (positive) or against it (negative).")] = (
        "positive"
    )

    def __post_init__(self) -> None:
        common.check_num_classes(self.num_classes)

    def load(self) -> tuple[nn.Module, dict[str, Any]]:
        """Load the network, and return it with keyword arguments for its explainer."""
        network = common.load_network(
            self.model, self.checkpoint, self.num_classes, self.device, prompts=self.prompt_options
        )
        return network, self.make_options(network)

    def make_options(self, network: nn.Module) -> dict[str, Any]:
        """Return keyword arguments for an explainer of a network."""
        options = make_explainer_options(network, self.class_names, self.mean, self.std, self.long_side)
        return options if self.evidence == "positive" else options | {"evidence": self.evidence}


def make_explainer_options(
    network: nn.Module,
    class_names: Path | None,
    mean: Colour | None,
    std: Colour | None,
    long_side: int | None = None,
) -> dict[str, Any]:
    """Return keyword arguments for an explainer.

    Raises:
        InputError: the file of class names cannot be read; `mean` or `std` do not fit the network.
    """
    from camplug.models.preprocess import find_preprocess

    options: dict[str, Any] = {}
    if class_names is not None:
        try:
            options["class_names"] = class_names.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{str(class_names)!r} cannot be read as a text file of class names.") from None
    if mean is not None or std is not None or long_side is not None:
        options["preprocess"] = find_preprocess(network, warn=False).change(mean, std, long_side)
    return options


def find_images(paths: list[Path], results: Path) -> tuple[list[Path], bool]:
    """Return the image files of files and folders, and whether a single photograph was given.

    Args:
        paths: files and folders; in folders, files below `results` are skipped.
        results: folder that the command writes to.

    Raises:
        InputError: a path that does not exist, or a folder without an image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += list_photos(path, results)
        elif len(paths) > 1 or path.exists():
            found.append(path)
        else:
            raise InputError(f"there is no file {str(path)!r}.")
    return found, len(paths) == 1 and not paths[0].is_dir()


def refuse_overwriting(photos: list[Path], targets: list[Path]) -> None:
    """Raise `InputError` if a result would replace a photograph."""
    kept = {photo.resolve() for photo in photos}
    for target in targets:
        if target.resolve() in kept:
            raise InputError(f"{str(target)!r} is the photograph itself; write the result to another place with --out.")


def summarize(
    path: Path, result: Explanation, written: list[str], multi_label: bool, share: float | None = None
) -> dict[str, Any]:
    """Return one explanation's classes, probabilities and boxes, for `--json` and tables.

    Args:
        path: photograph.
        result: its explanation.
        written: paths of the results.
        multi_label: probabilities by sigmoid.
        share: share of a map's maximum from which on its boxes count, if boxes are drawn.
    """
    shown = replace(result, multi_label=result.multi_label or multi_label)
    found = {"image": str(path), **shown.to_dict(0.5 if share is None else share), "written": written}
    return found if share is None else found | {"boxes_from": share}


def check_share(share: float | None) -> None:
    """Raise `InputError` for a share of a map's maximum that is not above 0 and at most 1."""
    if share is not None and not 0 < share <= 1:
        raise InputError(f"--mask {share:g} is no share of a map's maximum; give a number above 0, at most 1.")


def write_masks(result: Explanation, target: Path, share: float | None, photos: list[Path]) -> list[str]:
    """Write the masks of an explanation beside its picture, if wanted; return their paths.

    Args:
        result: the explanation.
        target: path of the picture; a mask's name has "_mask" and, of several classes, the class in addition.
        share: share of a map's maximum where masks begin; None writes none.
        photos: photographs, which no mask may replace.

    Raises:
        InputError: a mask would replace a photograph, or cannot be written.
    """
    from PIL import Image

    if share is None:
        return []
    written = []
    for k, (name, mask) in enumerate(zip(result.names, result.mask(share).numpy(), strict=True)):
        of_class = f"_{make_file_name(name)}" if len(result.names) > 1 else ""
        path = str(target.with_name(f"{target.stem}_mask{of_class}.png"))
        if path in written:  # names that differ in signs alone
            path = str(target.with_name(f"{target.stem}_mask{of_class}_{k}.png"))
        refuse_overwriting(photos, [Path(path)])
        save_picture(Image.fromarray(mask).convert("L"), path)
        written.append(path)
    return written


def show_classes(entry: dict[str, Any]) -> None:
    """Print the predicted classes of one image as a table."""
    from rich.table import Table

    table = Table(title=f"{Path(entry['image']).name}, {entry['size'][0]}x{entry['size'][1]}", title_justify="left")
    table.add_column("class", justify="right")
    table.add_column("name")
    table.add_column(f"probability ({entry['probabilities']})", justify="right")
    table.add_column("explained")
    top = {(row["index"], row["name"]) for row in entry["top"]}  # both sides of one output have one index
    explained = {(row["index"], row["name"]) for row in entry["explained"]}
    for row in [*entry["top"], *(e for e in entry["explained"] if (e["index"], e["name"]) not in top)]:
        marked = (row["index"], row["name"]) in explained
        mark = ("against" if entry["evidence"] == "negative" else "yes") if marked else ""
        p = "unknown" if row["probability"] is None else f"{row['probability']:.1%}"
        table.add_row(str(row["index"]), common.escape_markup(row["name"]), p, mark)
    common.out.print(table)


def show_images(entries: list[dict[str, Any]], shown: int = 20) -> None:
    """Print the classes of one image as a table, or one row for each of several images."""
    from rich.table import Table

    if len(entries) == 1:
        show_classes(entries[0])
        for row in entries[0]["explained"] if "boxes_from" in entries[0] else ():
            boxes = " ".join(str(tuple(box)) for box in row["boxes"])
            common.out.print(f"boxes of {common.escape_markup(row['name'])}: {boxes or 'none'}", soft_wrap=True)
        if entries[0]["written"]:
            common.out.print(f"written: {', '.join(entries[0]['written'])}", soft_wrap=True)
    if len(entries) < 2:
        return
    table = Table("image", "size", "explained", f"predicted ({entries[0]['probabilities']})")
    for entry in entries[:shown]:
        size = f"{entry['size'][0]}x{entry['size'][1]}"
        explained, predicted = _format_classes(entry["explained"]), _format_classes(entry["top"][:1])
        table.add_row(common.escape_markup(Path(entry["image"]).name), size, explained, predicted)
    common.out.print(table)
    if len(entries) > shown:
        common.out.print(f"... and {len(entries) - shown} more")
    if not entries[0]["written"]:
        return
    files, folder = [Path(name) for name in entries[0]["written"]], Path(entries[0]["written"][0]).parent
    masks = ", its masks" if any("_mask" in file.stem for file in files[2:]) else ""
    common.out.print(
        f"written: {folder}, one picture{masks} and one .npz for each of {len(entries)} images", soft_wrap=True
    )


def _format_classes(rows: list[dict[str, Any]], count: int = 3) -> str:
    names = [f"{common.escape_markup(row['name'])} {row['probability']:.1%}" for row in rows[:count]]
    return ", ".join([*names, "..."] if len(rows) > count else names)
