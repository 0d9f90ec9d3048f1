"""Options of the random walk of `camplug pseudo-labels`: the walk, its hyperparameters, weights and threshold."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from camplug.cli import common
from camplug.cli.crf_options import CRFOptions
from camplug.cli.evaluate import read_threshold
from camplug.cli.walk_network import WeightsOptions, load_walk_network
from camplug.errors import InputError
from camplug.settings import apply_values, list_settings
from camplug.wsss.irn.instances import IRN_THRESHOLD
from camplug.wsss.pseudo.walk_settings import UNTRAINED_WALKS, WALK_SETTINGS
from camplug.wsss.store.identity import hash_photographs, make_file_digest
from camplug.wsss.store.processes import get_shard

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData
    from camplug.wsss.seeds import SeedFolder

TRAINED_WALKS = tuple(name for name in WALK_SETTINGS if name not in UNTRAINED_WALKS)
IRN_ORIGIN = "IRN's own, chosen for other seeds: choose yours with --maps and `camplug evaluate`"


def _number(help_text: str, name: str) -> Any:
    """Return an option of walks with their defaults."""
    defaults = {walk: getattr(cls, name) for walk, cls in WALK_SETTINGS.items() if hasattr(cls, name)}
    texts = [f"{value:g} for {walk}" for walk, value in defaults.items()]
    first = next(iter(defaults.values()))
    equal = all(value == first for value in defaults.values())
    return typer.Option(help=help_text, show_default=f"{first:g}" if equal else ", ".join(texts))


@dataclass(frozen=True)
class ThresholdOptions:
    """Background threshold."""

    threshold: Annotated[
        float | Literal["otsu"] | None,
        typer.Option(
            help="Background threshold in [0, 1), or otsu to compute it from the maps. Not for affinitynet.",
            show_default=f"{IRN_THRESHOLD:g} for irn, else none",
        ),
    ] = None
    threshold_from: Annotated[
        Path | None,
        typer.Option(help="Take the threshold that was best in this report (.json) of `camplug evaluate`."),
    ] = None


@dataclass(frozen=True)
class WalkOptions(WeightsOptions, ThresholdOptions):
    """Walk, its weights and numbers, and the threshold that follows it."""

    walk: Annotated[
        Literal["none"] | str | None,
        typer.Option(
            help="Random walk: none, irn, affinitynet, colour, which needs no weights, or one of a plug-in, such as "
            "'import:mywalks:POWER?power=3'.",
            show_default="by the weights, none without",
        ),
    ] = None
    alpha: Annotated[
        float | None, _number("Power of affinitynet's background: the lower, the more background.", "alpha")
    ] = None
    beta: Annotated[float | None, _number("Power of affinities.", "beta")] = None
    steps: Annotated[int | None, _number("Steps of the walk.", "steps")] = None
    power: Annotated[float | None, _number("Power of the maps, for irn and colour.", "power")] = None
    clear: Annotated[float | None, _number("Factor by which boundaries lower the maps, for irn.", "clear")] = None

    def choose_walk(self) -> str:
        """Return the walk: the named one, or the one that the weights are for.

        Raises:
            InputError: weights that are missing, of another kind, or without effect.
        """
        from camplug.wsss.train.heads import load_heads

        if self.weights is None:
            if self.walk not in TRAINED_WALKS:
                return self.walk or "none"
            raise InputError(f"--walk {self.walk} needs --weights; `camplug train {self.walk}` makes them.")
        if self.walk not in (None, *TRAINED_WALKS):
            raise InputError(f"--walk {self.walk} uses no --weights; leave one of the two out.")
        kind: Any = self.walk
        found: str = load_heads(self.weights, kind=kind).kind
        return found


def refuse_idle_options(given: Collection[str], walk: str, maps: bool) -> None:
    """Raise `InputError` for a given option that has no effect.

    Args:
        given: names of the given options.
        walk: name of the walk.
        maps: store the walked maps, not labels.
    """
    if maps and walk == "none":
        raise InputError("--maps stores the maps after a walk; give --weights of one, or --walk colour.")
    own = set(list_settings(WALK_SETTINGS[walk]())) if walk in WALK_SETTINGS else set()
    idle = {name for cls in WALK_SETTINGS.values() for name in list_settings(cls())} - own
    if walk not in TRAINED_WALKS:
        idle |= {"model", "checkpoint", "num_classes"}
    if walk == "affinitynet":
        idle |= {"threshold", "threshold_from"}
    for name in given:
        if name in idle:
            own_background = walk == "affinitynet" and "threshold" in name
            hint = "; it has a background of its own, see --alpha" if own_background else ""
            if walk not in ("none", *WALK_SETTINGS):
                hint = f"; settings of a plug-in's walk follow its name: {walk.partition('?')[0]}?{name}=..."
            raise InputError(f"--{name.replace('_', '-')} has no effect with --walk {walk}{hint}; leave it out.")
    of_labels = {"threshold", "threshold_from", "certainty", *list_settings(CRFOptions())}
    for name in given:
        if name in (of_labels if maps else {"dtype", "scale"}):
            how = "with --maps" if maps else "without --maps"
            raise InputError(f"--{name.replace('_', '-')} has no effect {how}; leave it out.")


def make_walk_settings(walk: str, weights: Path | None, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return kind, hyperparameters and fingerprint of the weights of a walk; None without a walk.

    Args:
        walk: name of the walk.
        weights: file of its network, if it has one.
        values: given options.
    """
    if walk == "none":
        return None
    digest = {} if weights is None else {"weights": make_file_digest(str(weights), "file of heads")}
    return {"kind": walk, **digest, **asdict(apply_values(WALK_SETTINGS[walk](), values))}


def compute_threshold(seeds: SeedFolder, data: SegmentationData, walk: str) -> tuple[float, str]:
    """Compute the threshold by Otsu's method; return it with its origin in words.

    Raises:
        InputError: the maps walk first; too few values.
    """
    from camplug.wsss.seeds import compute_otsu_of_seeds

    if walk != "none":
        raise InputError(
            "--threshold otsu is computed from the walked maps, which do not exist yet; store them with --maps, then "
            "make the labels of that folder."
        )
    shown = get_shard()[0] == 0
    (value,), images = compute_otsu_of_seeds(
        seeds, data.ids, 2, lambda count: common.show_progress("values of the maps", count, shown=shown)
    )
    return value, f"by Otsu's method on the values of {images} images' maps"


def choose_threshold(
    options: ThresholdOptions,
    walk: dict[str, Any] | None,
    seeds: SeedFolder,
    data: SegmentationData,
    kind_of_walk: str,
    *,
    default: float | None = None,
) -> tuple[float, str]:
    """Return the background threshold, and its origin in words.

    Args:
        options: the threshold, or a report.
        walk: settings of the walk of the maps that the threshold cuts; None without a walk.
        seeds: the maps.
        data: the images.
        kind_of_walk: walk of this run.
        default: threshold that a walk of a plug-in has.

    Raises:
        InputError: no threshold is given or known; a report of other maps; not from 0 to below 1.
    """
    report = options.threshold_from
    if options.threshold is not None and report is not None:
        raise InputError("--threshold and --threshold-from exclude each other; give one.")
    if isinstance(options.threshold, str):
        return compute_threshold(seeds, data, kind_of_walk)
    value, how = read_threshold(options.threshold, report, hash_photographs(data))
    if report is not None:
        before = json.loads(report.read_text(encoding="utf-8")).get("seeds", {}).get("walk")
        if before != walk:
            has, wanted = (("walked maps" if w else "maps before any walk") for w in (before, walk))
            wanted = "maps of another walk" if before and walk else wanted
            raise InputError(
                f"{str(report)!r} chose its threshold on {has}, and here it would cut {wanted}; make those of that "
                "split, with --maps where there is a walk, and give the report of `camplug evaluate` on them."
            )
    if value is not None:
        return value, how
    if kind_of_walk == "irn":
        return IRN_THRESHOLD, IRN_ORIGIN
    if default is not None:
        return default, "the walk's own"
    raise InputError(
        "--threshold is missing: up to which value a map is background; choose it with `camplug evaluate` on another "
        "split, and give it, or the report with --threshold-from."
    )


def make_scores(options: WalkOptions, threshold: float | None, walk: dict[str, Any] | None, device: str) -> Any:
    """Build what computes the class scores of pixels, and load its network.

    Args:
        options: the weights, and the classifier where it is given.
        threshold: background threshold.
        walk: settings of the walk; None without a walk.
        device: device of the network.

    Raises:
        InputError: a number out of range; a classifier that is unknown, or not the one of the weights.
    """
    from camplug.wsss.pseudo import AffinityNetWalk, ColourWalk, IRNWalk, Threshold

    if walk is None:
        assert threshold is not None
        return Threshold(threshold)
    numbers = {name: walk[name] for name in list_settings(WALK_SETTINGS[walk["kind"]]())}
    if walk["kind"] == "colour":
        return ColourWalk(0.0 if threshold is None else threshold, **numbers)
    network = load_walk_network(options, device)
    if walk["kind"] == "affinitynet":
        return AffinityNetWalk(network, **numbers)
    return IRNWalk(network, IRN_THRESHOLD if threshold is None else threshold, **numbers)


def describe_walk(walk: dict[str, Any] | None, threshold: float | None, how: str) -> dict[str, Any]:
    """Return the walk with its error bound and the threshold with its origin, for the report."""
    from camplug.wsss.affinity import compute_chebyshev_terms

    facts: dict[str, Any] = {}
    if walk is not None and walk["kind"] not in WALK_SETTINGS:
        facts["walk"] = walk
    elif walk is not None:
        coefficients, bound = compute_chebyshev_terms(walk["steps"])
        facts["walk"] = {**walk, "products": len(coefficients) - 1, "error_bound": bound}
    if threshold is not None:
        facts |= {"threshold": threshold, "threshold_chosen": how}
    return facts


def format_facts(facts: dict[str, Any]) -> list[str]:
    """Return the lines to print for `describe_walk`."""
    lines = []
    if "walk" in facts:
        walk = facts["walk"]
        how = ", ".join(f"{name} {value}" for name, value in walk.items() if name != "kind")
        if "products" in walk:
            how = f"{walk['steps']} steps in {walk['products']} products, error at most {walk['error_bound']:.1e}"
        lines.append(f"walk {walk['kind']}: {how}")
    if "threshold" in facts:
        lines.append(f"threshold {facts['threshold']:g}, {facts['threshold_chosen']}")
    return lines
