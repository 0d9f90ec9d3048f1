"""Command `camplug explain`: maps of photographs."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from camplug.cli import common
from camplug.cli.explanations import (
    ExplainerOptions,
    check_share,
    find_images,
    refuse_overwriting,
    show_images,
    summarize,
    write_masks,
)
from camplug.cli.options import add_options, read_options
from camplug.errors import InputError, TargetError
from camplug.explain import create
from camplug.explain.base import Explainer
from camplug.explain.explanation import Explanation
from camplug.images.sample import find_sample_photo
from camplug.images.save import make_file_name, save_picture, write_atomically
from camplug.settings import apply_values
from camplug.show import grid
from camplug.show.gallery import Gallery
from camplug.show.overlays import DEFAULT_COLORS, DEFAULT_OPACITY, check_style

DEMO_METHODS = {"fully": "Fully-CAM", "cam": "CAM", "gradcam": "Grad-CAM"}


@dataclass(frozen=True)
class PictureOptions:
    """Look of the overlays, and masks beside them.

    Args:
        colors: colour map of matplotlib, such as viridis.
        opacity: opacity of a map where it is 1, from 0 to 1.
        contour: outline where a map reaches this share of its maximum.
        boxes: boxes around the parts that reach this share of the maximum; their corners are printed, too.
        mask: share of the maximum where masks begin, which are then written, too: a PNG of 0 and 255 per class.
    """

    colors: str = DEFAULT_COLORS
    opacity: float = DEFAULT_OPACITY
    contour: float | None = None
    boxes: float | None = None
    mask: float | None = None

    def __post_init__(self) -> None:
        check_style(self.colors, self.opacity, self.contour)
        check_share(self.mask)


@add_options(ExplainerOptions(), PictureOptions())
def explain(  # noqa: PLR0917
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Photographs, or folders of them.", show_default="a photograph of a cat")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", "-c", help="Class index or name; repeat for more.", show_default="predicted"),
    ] = None,
    method: common.MethodName = None,
    layers: common.Layers = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Picture (.png, .svg, ...) or numbers (.npz); a folder for several photographs."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Gallery in one .html file; other files are then written only with --out."),
    ] = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Explain photographs: where does the model see the class?

    Without a photograph: a photograph of a cat, the demo model, and Fully-CAM, CAM and Grad-CAM side by side.
    A folder gives one picture and one .npz per photograph; damaged files are listed at the end, exit code 1.
    """
    with common.report_errors():
        chosen = apply_values(ExplainerOptions(), read_options(given, None, ExplainerOptions()))
        style = asdict(apply_values(PictureOptions(), read_options(given, None, PictureOptions())))
        network, options = chosen.load()
        wanted: Any = list(classes) if classes else None
        if layers:
            options["layers"] = layers[0] if len(layers) == 1 else layers
        if not paths and method is None and html is None:
            target = output or Path("camplug_explain.png")
            entry = _explain_demo(network, wanted, options, target, multi_label=chosen.multi_label, style=style)
            _show_entries([entry], [], as_json)
            return
        explainer = create(method or "fully", network, **options)
        folder = output or Path("camplug_maps")
        files, single = find_images(paths or [find_sample_photo()], folder)
        if single and html is None:
            target = output or Path(f"{files[0].stem}_{make_file_name(explainer.name)}.png")
            entry = _explain_file(explainer, files[0], wanted, target, multi_label=chosen.multi_label, style=style)
            _show_entries([entry], [], as_json)
            return
        gallery = None if html is None else _GalleryFile(html, f"Where {chosen.model} looks: {explainer.name}", files)
        kept, kind = folder if output or html is None else None, chosen.multi_label
        entries, broken = _explain_files(explainer, files, wanted, kept, gallery, multi_label=kind, style=style)
        _show_entries(entries, broken, as_json, gallery if entries else None)
        if broken:
            raise typer.Exit(1)


def _explain_demo(
    network: Any, wanted: Any, options: dict[str, Any], target: Path, *, multi_label: bool, style: dict[str, Any]
) -> dict[str, Any]:
    photo = find_sample_photo()
    results: list[Explanation] = []
    for name in DEMO_METHODS:
        shown = wanted if not results else [results[0].classes[0]]
        own = {k: v for k, v in options.items() if k != "layers" or name == "fully"}
        result = create(name, network, **own).explain(photo, shown)
        assert isinstance(result, Explanation)
        results.append(result)
    first, share = results[0], style["boxes"]
    picture = grid(
        np.asarray(first.image),
        [r.maps[0].numpy() for r in results],
        list(DEMO_METHODS.values()),
        title=first.title(multi_label=multi_label or None).replace("\n", ": "),
        **{name: value for name, value in style.items() if name not in ("boxes", "mask")},
        each=[{"boxes": [] if share is None else r.boxes(share)[0]} for r in results],
    )
    save_picture(picture, str(target))
    written = [str(target), *write_masks(first, target, style["mask"], [photo])]
    return summarize(photo, first, written, multi_label, share)


def _explain_file(
    explainer: Explainer, file: Path, wanted: Any, target: Path, *, multi_label: bool, style: dict[str, Any]
) -> dict[str, Any]:
    refuse_overwriting([file], [target])
    result = explainer.explain(file, wanted)
    assert isinstance(result, Explanation)
    result.multi_label |= multi_label
    written = _save(result, [target], style, [file])
    return summarize(file, result, written, multi_label, style["boxes"])


def _save(result: Explanation, targets: list[Path], style: dict[str, Any], photos: list[Path]) -> list[str]:
    """Write an explanation to each of the files, and its masks; return the paths."""
    look = {name: value for name, value in style.items() if name != "mask"}
    for target in targets:
        result.save(target, **look)
    return [*map(str, targets), *(write_masks(result, targets[0], style["mask"], photos) if targets else [])]


class _GalleryFile:
    """Gallery with the file that it is written to.

    Raises:
        InputError: the file is no .html file or is a folder, or its folder cannot be made.
    """

    def __init__(self, path: Path, title: str, files: list[Path]) -> None:
        if path.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--html {str(path)!r} is the file of the gallery; give a name that ends with .html.")
        if path.is_dir():  # refused here, since writing fails only after all photographs are explained
            raise InputError(f"--html {str(path)!r} is a folder; give a file, such as {str(path / 'gallery.html')!r}.")
        _make_folder(path.parent)
        self.path, self.content = path, Gallery(title)
        self.base = os.path.commonpath([file.absolute().parent for file in files])

    def add(self, file: Path, result: Explanation, style: dict[str, Any]) -> None:
        """Add a photograph by its path below the folder of all."""
        look = {name: value for name, value in style.items() if name != "mask"}
        self.content.add(os.path.relpath(file, self.base), result, **look)

    def write(self, broken: list[tuple[Path, str]]) -> None:
        """Write the gallery if it holds a photograph."""
        if self.content.items:
            self.content.broken = [(str(file), error) for file, error in broken]
            page = self.content.render().encode()
            write_atomically(str(self.path), lambda file: file.write(page))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(folder)!r} cannot be made ({error.strerror}).") from None


def _explain_files(
    explainer: Explainer,
    files: list[Path],
    wanted: Any,
    folder: Path | None,
    gallery: _GalleryFile | None,
    *,
    multi_label: bool,
    style: dict[str, Any],
) -> tuple[list[dict[str, Any]], list[tuple[Path, str]]]:
    from rich.progress import track

    names = _make_unique_names(files)
    if folder is not None:
        refuse_overwriting(files, [folder / f"{name}.png" for name in names])
        _make_folder(folder)
    entries: list[dict[str, Any]] = []
    broken: list[tuple[Path, str]] = []
    pairs = list(zip(files, names, strict=True))
    shown = common.err.is_terminal  # elsewhere a bar would only fill the log
    try:
        for file, name in track(pairs, description="explaining", console=common.err) if shown else pairs:
            try:
                result = explainer.explain(file, wanted)
                assert isinstance(result, Explanation)
                result.multi_label |= multi_label
                targets = [] if folder is None else [folder / f"{name}.png", folder / f"{name}.npz"]
                written = _save(result, targets, style, files)
                if gallery is not None:
                    gallery.add(file, result, style)
                entries.append(summarize(file, result, written, multi_label, style["boxes"]))
            except Exception as error:  # of memory or of a model of the user's: other images may work
                if isinstance(error, TargetError) and not entries:  # a wrong class fails for every photograph
                    raise
                broken.append((file, str(error).strip() or type(error).__name__))
    finally:  # an interrupted command leaves what it has
        if gallery is not None:
            gallery.write(broken)
    return entries, broken


def _make_unique_names(files: list[Path]) -> list[str]:
    """Return file names without suffix, with folders, suffix and a number where needed to be unique."""
    stems = Counter(f.stem for f in files)
    names: dict[str, None] = {}
    for file in files:
        name = file.stem
        if stems[name] > 1:
            name = "_".join(file.with_suffix("").parts[-3:]).replace("/", "_") + file.suffix.replace(".", "_")
        plain, n = name, 2
        while name in names:
            name, n = f"{plain}_{n}", n + 1
        names[name] = None
    return list(names)


def _show_entries(
    entries: list[dict[str, Any]],
    broken: list[tuple[Path, str]],
    as_json: bool,
    gallery: _GalleryFile | None = None,
) -> None:
    if as_json:
        document = {"images": entries, "broken": [{"image": str(p), "error": e} for p, e in broken]}
        common.print_json(document | ({"gallery": str(gallery.path)} if gallery else {}))
    else:
        show_images(entries)
        if gallery:
            common.out.print(f"gallery: {gallery.path}", soft_wrap=True)
    common.show_broken([(str(path), error) for path, error in broken])
