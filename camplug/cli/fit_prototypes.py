"""Command `camplug fit-prototypes`: the local prototypes of a classifier, from training images with image labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from camplug.cli import common
from camplug.cli.explanations import make_explainer_options
from camplug.cli.option_groups import DataOptions, NetworkOptions
from camplug.cli.options import add_options, read_options
from camplug.errors import InputError
from camplug.settings import apply_values


@dataclass(frozen=True)
class PrototypeOptions:
    """File of the prototypes, and settings of the fit."""

    long_side: common.LongSide = None
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the prototypes.")] = Path("prototypes.npz")
    clusters: Annotated[int, typer.Option(help="Maximum number of clusters per class, and of its context.")] = 12
    max_positions: Annotated[int, typer.Option(help="Maximum number of features per class, and of its context.")] = (
        10000
    )


GROUPS = DataOptions(), PrototypeOptions(), NetworkOptions()


@add_options(*GROUPS)
def fit_prototypes(
    overwrite: common.Overwrite = False,
    config: common.Config = None,
    as_json: common.AsJson = False,
    **given: Any,
) -> None:
    """Make the prototypes of LPCAM in one pass over training images; masks are not read.

    They are used as --explainer "LPCAM(prototypes='prototypes.npz')".
    Broken images are listed at the end, exit code 1.
    """
    with common.report_errors():
        from camplug.explain import CAM
        from camplug.explain.local_prototypes import PrototypeFitter
        from camplug.models.class_names import find_class_names
        from camplug.wsss.class_names import match_classes
        from camplug.wsss.data import open_data

        values = read_options(given, config, *GROUPS)
        chosen, network = apply_values(PrototypeOptions(), values), apply_values(NetworkOptions(), values)
        options = apply_values(DataOptions(), values)
        if chosen.out.suffix != ".npz":
            raise InputError(f"--out {str(chosen.out)!r}: prototypes are an .npz file; give a name that ends in .npz.")
        if chosen.out.exists() and not overwrite:
            raise InputError(f"{str(chosen.out)!r} exists; replace it with --overwrite, or give another --out.")
        data = open_data(options.get_data(), options.split)
        net = network.load()
        explainer = CAM(net, **make_explainer_options(net, None, network.mean, network.std, chosen.long_side))
        names = find_class_names(net)
        outputs = list(range(len(data.classes))) if names is None else match_classes(names, data.classes)
        fitter = PrototypeFitter(explainer, clusters=chosen.clusters, max_positions=chosen.max_positions)
        broken: list[tuple[str, str]] = []
        with common.show_progress("images", len(data)) as advance:
            for i, name in enumerate(data.ids):
                try:
                    photo, classes = data.photo(i), data.labels(i)
                except InputError as error:
                    broken.append((name, str(error)))
                else:
                    fitter.add(photo, [outputs[c] for c in classes])
                advance()
        prototypes = fitter.fit()
        prototypes.save(chosen.out)
        counts = {data.classes[k]: len(prototypes.positive[c]) for k, c in enumerate(outputs)}
        _report(chosen.out, len(data) - len(broken), counts, broken, as_json)


def _report(out: Path, images: int, counts: dict[str, int], broken: list[tuple[str, str]], as_json: bool) -> None:
    """Print what was made.

    Raises:
        typer.Exit: code 1, some images are broken.
    """
    if as_json:
        common.print_json(
            {
                "file": str(out),
                "images": images,
                "prototypes": counts,
                "broken": [{"image": name, "error": error} for name, error in broken],
            }
        )
    else:
        text = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        absent = [name for name, count in counts.items() if not count]
        text += f"; none of {', '.join(absent)}, which no image shows" if absent else ""
        common.out.print(common.escape_markup(f"{out}: prototypes of {images} images: {text}"), soft_wrap=True)
    common.show_broken(broken)
    if broken:
        raise typer.Exit(1)
