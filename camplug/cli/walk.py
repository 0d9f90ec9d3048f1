"""Which random walk `camplug pseudo-labels` makes, with which numbers, and which threshold follows it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camplug.cli import common, crf_options
from camplug.cli.evaluate import given_threshold
from camplug.errors import InputError
from camplug.wsss.store.identity import hash_photographs, make_file_digest
from camplug.wsss.store.jobs import share

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData
    from camplug.wsss.seeds import SeedFolder

WALKS = ("none", "irn", "affinitynet")
OF_WALK: dict[str, dict[str, float]] = {  # what a walk is told, and its default
    "none": {},
    "irn": {"beta": 10.0, "steps": 256, "power": 1.0, "clear": 1.0},
    "affinitynet": {"alpha": 16.0, "beta": 8.0, "steps": 256},
}
PAPERS = 0.25, "IRN's own, chosen for other seeds: choose yours with --maps and `camplug evaluate`"


def chosen_walk(chosen: dict[str, Any]) -> str:
    """Which walk is meant: the one that is named, or the one that the weights are for.

    Raises:
        InputError: no such walk; weights that are missing, of another kind, or for nothing.
    """
    from camplug.wsss.train.heads import load_heads

    walk, weights = chosen.get("walk"), chosen.get("weights")
    if walk not in (None, *WALKS):
        raise InputError(f"--walk {walk!r}; allowed are {', '.join(WALKS)}.")
    if weights is None:
        if walk in (None, "none"):
            return "none"
        command = "irn" if walk == "irn" else "affinitynet"
        raise InputError(f"--walk {walk} needs --weights; `camplug train {command}` makes them.")
    if walk == "none":
        raise InputError("--walk none uses no --weights; leave one of the two out.")
    found: str = load_heads(weights, kind=walk).kind
    return found


def refuse_idle(told: dict[str, Any], walk: str, maps: bool) -> None:
    """Refuse options that would change nothing.

    Raises:
        InputError: there is one.
    """
    if maps and walk == "none":
        raise InputError("--maps stores the maps after a walk; give --weights of one.")
    other = {name for options in OF_WALK.values() for name in options} - set(OF_WALK[walk])
    if walk == "none":
        other |= {"model", "checkpoint", "num_classes"}
    if walk == "affinitynet":
        other |= {"threshold", "threshold_from"}
    idle = [name for name in told if name in other]
    if idle:
        hint = (
            "; it has a background of its own, see --alpha" if walk == "affinitynet" and "threshold" in idle[0] else ""
        )
        raise InputError(f"--{idle[0].replace('_', '-')} has no effect with --walk {walk}{hint}; leave it out.")
    of_labels = {"threshold", "threshold_from", "certainty", *crf_options.OPTIONS}
    idle = [n for n in told if n in (of_labels if maps else {"dtype", "scale"})]
    if idle:
        how = "with --maps" if maps else "without --maps"
        raise InputError(f"--{idle[0].replace('_', '-')} has no effect {how}; leave it out.")


def settings_of_walk(walk: str, chosen: dict[str, Any]) -> dict[str, Any] | None:
    """What the walk is told, and the fingerprint of its weights; None without a walk."""
    if walk == "none":
        return None
    numbers = {name: chosen.get(name, default) for name, default in OF_WALK[walk].items()}
    return {"kind": walk, "weights": make_file_digest(str(chosen["weights"]), "file of heads"), **numbers}


def threshold_read(name: str, given: Any) -> Any:
    """A threshold as it was given: a number, "otsu", or None.

    Raises:
        InputError: something else.
    """
    if given is None or given == "otsu":
        return given
    try:
        return float(given)
    except (TypeError, ValueError):
        raise InputError(f"--{name} {given!r}; give a number, or otsu.") from None


def threshold_by_otsu(seeds: SeedFolder, data: SegmentationData, walk: str) -> tuple[float, str]:
    """The threshold that the values of the maps give, and in words where it comes from.

    Raises:
        InputError: the maps that it would cut are not there yet; too few values.
    """
    from camplug.wsss.seeds import compute_otsu_of_seeds

    if walk != "none":
        raise InputError(
            "--threshold otsu reads the maps that it cuts, and these have yet to walk; store them with --maps, then "
            "make the labels of that folder."
        )
    shown = share()[0] == 0
    (value,), images = compute_otsu_of_seeds(
        seeds, data.ids, 2, lambda count: common.progress("values of the maps", count, shown=shown)
    )
    return value, f"by Otsu's method on the values of {images} images' maps"


def threshold_of(
    chosen: dict[str, Any],
    walk: dict[str, Any] | None,
    seeds: SeedFolder,
    data: SegmentationData,
    kind_of_walk: str,
) -> tuple[float, str]:
    """The background threshold, and in words where it comes from.

    Args:
        chosen: the options.
        walk: what the maps that it cuts have walked, if they did.
        seeds: the maps.
        data: the images.
        kind_of_walk: of this run.

    Raises:
        InputError: none is given and none is known; a report of other maps; not from 0 to below 1.
    """
    report = chosen.get("threshold_from")
    if chosen.get("threshold") is not None and report is not None:
        raise InputError("--threshold and --threshold-from exclude each other; give one.")
    path = None if report is None else Path(str(report))
    threshold = threshold_read("threshold", chosen.get("threshold"))
    if threshold == "otsu":
        return threshold_by_otsu(seeds, data, kind_of_walk)
    value, how = given_threshold(threshold, path, hash_photographs(data))
    if path is not None:
        before = json.loads(path.read_text(encoding="utf-8")).get("seeds", {}).get("walk")
        if before != walk:
            has, wanted = (("walked maps" if w else "maps before any walk") for w in (before, walk))
            wanted = "maps of another walk" if before and walk else wanted
            raise InputError(
                f"{str(path)!r} chose its threshold on {has}, and here it would cut {wanted}; make those of that "
                "split, with --maps where there is a walk, and give the report of `camplug evaluate` on them."
            )
    if value is not None:
        return value, how
    if kind_of_walk == "irn":
        return PAPERS
    raise InputError(
        "--threshold is missing: up to which value a map is background; choose it with `camplug evaluate` on another "
        "split, and give it, or the report with --threshold-from."
    )


def scores_of(chosen: dict[str, Any], threshold: float | None, walk: dict[str, Any] | None, device: str) -> Any:
    """What scores the classes of a photograph's pixels, with its network loaded.

    Raises:
        InputError: a number out of range; a classifier that is not known, or not the one of the weights.
    """
    from camplug.wsss.pseudo import AffinityNetWalk, IRNWalk, Threshold

    if walk is None:
        assert threshold is not None
        return Threshold(threshold)
    numbers = {name: walk[name] for name in OF_WALK[walk["kind"]]}
    if walk["kind"] == "affinitynet":
        return AffinityNetWalk(network_of(chosen, device), **numbers)
    return IRNWalk(network_of(chosen, device), PAPERS[0] if threshold is None else threshold, **numbers)


def network_of(chosen: dict[str, Any], device: str) -> Any:
    """The network of the weights, on the classifier that they name unless another one is given.

    Raises:
        InputError: lightning is missing; no classifier is known, or it is another one than that of the weights.
    """
    from camplug.wsss.train.heads import FILE_KEYS, find_file, is_file_path, load_heads

    need_lightning()
    heads = load_heads(chosen["weights"])
    given = {k: v for k, v in chosen.items() if v is not None}
    known = heads.made_with | given
    if known.get("model") is None:
        raise InputError(f"{str(chosen['weights'])!r} does not name its classifier; give it with --model.")
    for key in FILE_KEYS:
        if key not in given and is_file_path(key, known.get(key)):
            known[key] = find_file(heads.made_with, key, chosen["weights"])
    checkpoint = None if known.get("checkpoint") is None else Path(str(known["checkpoint"]))
    model = common.load(str(known["model"]), checkpoint, known.get("num_classes"), device)
    if heads.kind == "irn":
        from camplug.wsss.irn.checkpoint import load_irn

        return load_irn(chosen["weights"], model)
    from camplug.wsss.affinitynet.checkpoint import load_affinitynet

    return load_affinitynet(chosen["weights"], model)


def need_lightning() -> None:
    """Refuse to go on without the package that trained networks are built with.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("lightning") is None:
        raise InputError('this needs the package lightning; install it with: pip install "camplug[train]".')


def facts_of(walk: dict[str, Any] | None, threshold: float | None, how: str) -> dict[str, Any]:
    """What is told of a run beside its counts."""
    from camplug.wsss.affinity import compute_chebyshev_terms

    facts: dict[str, Any] = {}
    if walk is not None:
        coefficients, bound = compute_chebyshev_terms(walk["steps"])
        facts["walk"] = {**walk, "products": len(coefficients) - 1, "error_bound": bound}
    if threshold is not None:
        facts |= {"threshold": threshold, "threshold_chosen": how}
    return facts


def lines_of(facts: dict[str, Any]) -> list[str]:
    """The same in words."""
    lines = []
    if "walk" in facts:
        walk = facts["walk"]
        lines.append(
            f"walk {walk['kind']}: {walk['steps']} steps in {walk['products']} products, error at most "
            f"{walk['error_bound']:.1e}"
        )
    if "threshold" in facts:
        lines.append(f"threshold {facts['threshold']:g}, {facts['threshold_chosen']}")
    return lines
