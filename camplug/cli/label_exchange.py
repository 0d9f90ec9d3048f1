"""Commands `camplug export-labels` and `camplug import-labels`: label pictures in annotation tools, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from camplug.cli import common
from camplug.errors import InputError

if TYPE_CHECKING:
    from camplug.wsss.exchange import LabelledImage
    from camplug.wsss.pseudo import LabelFolder

Format: TypeAlias = Annotated[str, typer.Option("--format", "-f", help="coco, cvat, label-studio or labelme.")]
Photos: TypeAlias = Annotated[Path, typer.Option(help="Folder of the photographs, for their names and sizes.")]
Classes: TypeAlias = Annotated[
    Path | None, typer.Option(help="File of class names, one per line.", show_default="names that the labels carry")
]


def export_labels(  # noqa: PLR0917
    labels: Annotated[Path, typer.Argument(help="Label pictures of `camplug segment`, `pseudo-labels` or a recipe.")],
    photos: Photos,
    format_: Format,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; labelme: a folder, best the photographs'.")],
    classes: Classes = None,
    tolerance: Annotated[
        float, typer.Option(help="labelme: pixels by which polygons may miss the outline; 0 keeps every pixel.")
    ] = 1.0,
    as_json: common.AsJson = False,
) -> None:
    """Write label pictures as a file of an annotation tool, to correct them by hand.

    coco, cvat and label-studio hold every pixel as it is; labelme holds polygons. Label Studio gets predictions, which
    annotators accept or correct, and its labelling interface in a second file.
    """
    with common.report_errors():
        from camplug.wsss.exchange import write_label_maps
        from camplug.wsss.exchange.formats import PhotoFolder, get_format
        from camplug.wsss.pseudo import LabelFolder

        get_format(format_)
        folder, there = LabelFolder(labels), PhotoFolder(photos)
        found = [name for name in there.names if folder.get_path(name).is_file()]
        if not found:
            raise InputError(f"{str(labels)!r} has no label picture of a photograph in {str(photos)!r}.")
        names = _read_names(labels, classes)
        write_label_maps(_load_labels(folder.renumber(names), found, there), names, out, format_, tolerance)
        _report(out, len(found), as_json)


def import_labels(  # noqa: PLR0917
    file: Annotated[Path, typer.Argument(help="File as the annotation tool exports it; labelme: the folder.")],
    photos: Photos,
    format_: Format,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the label pictures.")],
    classes: Classes = None,
    changed_from: Annotated[
        Path | None,
        typer.Option(help="Label pictures that were exported: only images whose labels differ from them are written."),
    ] = None,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """Write label pictures of masks that were corrected in an annotation tool.

    From Label Studio come the images that have an annotation, from the others all images in the file.
    """
    with common.report_errors():
        import numpy as np

        from camplug.wsss.exchange import read_label_maps
        from camplug.wsss.pseudo import LabelFolder

        if changed_from is None and classes is None:
            raise InputError("--classes classes.txt is missing, or --changed-from with the labels that were exported.")
        names = _read_names(changed_from, classes)
        before = None if changed_from is None else LabelFolder(changed_from).renumber(names)
        folder = LabelFolder(out).prepare({"classes": names, "imported": format_}, overwrite=overwrite)
        made = 0
        for name, labels in read_label_maps(file, names, photos, format_):
            if before is not None and before.get_path(name).is_file() and np.array_equal(before.load(name), labels):
                folder.remove(name)  # of a correction that was taken back
                continue
            folder.save(name, labels)
            made += 1
        _report(out, made, as_json)


def _read_names(labels: Path | None, classes: Path | None) -> list[str]:
    """Read class names from a file, else from the settings of a folder of labels."""
    from camplug.wsss.data.class_list import read_class_names
    from camplug.wsss.pseudo import LabelFolder
    from camplug.wsss.store.settings_folder import SETTINGS

    if classes is not None:
        return list(read_class_names(classes))
    assert labels is not None
    settings: dict[str, Any] = LabelFolder(labels).read_settings() if (labels / SETTINGS).is_file() else {}
    if "classes" not in settings:
        raise InputError(f"{str(labels)!r} names no classes; give them with --classes classes.txt, one per line.")
    return [str(name) for name in settings["classes"]]


def _load_labels(folder: LabelFolder, names: list[str], there: Any) -> Iterator[LabelledImage]:
    """Yield label maps with the file names of their photographs."""
    from camplug.wsss.data.read_files import check_size
    from camplug.wsss.exchange import LabelledImage

    for name in names:
        photo, labels = there.names[name], folder.load(name)
        check_size(photo, (labels.shape[1], labels.shape[0]), f"the label picture {str(folder.get_path(name))!r}")
        yield LabelledImage(photo.relative_to(there.folder).as_posix(), labels)


def _report(out: Path, count: int, as_json: bool) -> None:
    if as_json:
        common.print_json({"out": str(out), "images": count})
    else:
        common.out.print(common.escape_markup(f"{out}: labels of {count} images."), soft_wrap=True)
