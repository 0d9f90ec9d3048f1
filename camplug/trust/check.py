"""Measurement of one map against maps at random places, random weights and other classes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.base import Explainer
from camplug.explain.batch import check_batch
from camplug.explain.explanation import Explanation
from camplug.explain.fuse import normalize_map
from camplug.explain.photographs import read_input
from camplug.models.class_names import get_class_title
from camplug.trust.curves import area_under_curve, replace_in_order
from camplug.trust.perturb import make_baseline, move_maps, rank_pixels
from camplug.trust.randomize import STAGES, Cascade, cascade, explain_classes
from camplug.trust.report import (
    LEVEL,
    Curves,
    Measurements,
    TrustReport,
    decide_verdict,
    list_reasons,
    list_warnings,
)
from camplug.trust.road import road_curve
from camplug.trust.score import BATCH_SIZE, ClassScore
from camplug.trust.similarity import is_constant, rank_correlation

RANDOM = 19
"""Default number of random places; with 19 of them a map can be better than all by chance in 1 of 20 cases."""
ROAD_FRACTIONS = (0.1, 0.3, 0.5, 0.7)
ROAD_RANDOM = 3
NOISY = 3
NOISE = 0.1
OTHERS = 4


def check(
    explainer: Explainer,
    image: Any,
    cls: Any = None,
    *,
    inputs: Any = None,
    random: int = RANDOM,
    steps: int = 10,
    stages: int = STAGES,
    batch_size: int = BATCH_SIZE,
    multi_label: bool | None = None,
    seed: int = 0,
) -> TrustReport:
    """Check whether the map of one class of one photograph is trustworthy.

    The deletion and insertion curves of the map are compared with those of the same map at random places, ROAD with 0,
    and the maps of other classes and of a model with random weights with those of the photograph with noise.

    Args:
        explainer: any explainer.
        image: photograph, see `camplug.explain.photographs.explain`.
        cls: class index or name; None for the predicted class.
        inputs: the model's other inputs for this image.
        random: number of random places, at least 19.
        steps: number of steps of the curves.
        stages: number of stages of the randomisation.
        batch_size: number of changed images in one forward pass.
        multi_label: the classes do not exclude each other; default: as far as the model tells.
        seed: seed of all random numbers.

    Raises:
        InputError: not one photograph and one class, or too few random places.
        TargetError: a class that the model does not have.
    """
    if random < round(1 / LEVEL) - 1:
        raise InputError(
            f"random={random}; give at least {round(1 / LEVEL) - 1}, of fewer places not even the best map stands out."
        )
    x, explanation = _explain_image(explainer, image, cls, inputs, multi_label)
    batch = check_batch(explainer.model, x[None], inputs)
    score = ClassScore(
        explainer.model,
        batch,
        [list(explanation.classes)],
        evidence=explainer.evidence,
        inclusive=multi_label,
        link=explanation.link if explanation.link != "logits" else None,
    )
    options = {"random": random, "steps": steps, "stages": stages, "batch_size": batch_size, "seed": seed}
    m, curves, random_weights = _measure_map(explainer, score, explanation.all_names, **options)
    return TrustReport(
        decide_verdict(m),
        list_reasons(m),
        list_warnings(m, explainer.evidence),
        m,
        explanation,
        curves,
        [] if random_weights is None else _show_weights(random_weights),
    )


def _explain_image(
    explainer: Explainer, image: Any, cls: Any, inputs: Any, multi_label: bool | None
) -> tuple[Tensor, Explanation]:
    """Return the image [C,H,W] that goes into the model, and the explanation of one class."""
    photo, x = read_input(explainer, image)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*map (is all 0|of .* is constant)")  # the report says it
        explanation = explainer.explain(x if isinstance(image, Tensor) else photo, cls, inputs=inputs)
    if not isinstance(explanation, Explanation) or len(explanation.maps) != 1:
        raise InputError("check() takes one photograph and one class; call it for each.")
    if explanation.classes[0] < 0:
        raise InputError("trust is measured in the probability of a class; got a callable, give a class.")
    if multi_label is not None:
        explanation.multi_label = multi_label
    return x, explanation


def _measure_map(
    explainer: Explainer,
    score: ClassScore,
    names: list[str] | None,
    *,
    random: int,
    steps: int,
    stages: int,
    batch_size: int,
    seed: int,
) -> tuple[Measurements, Curves | None, Cascade | None]:
    """Return the numbers of the map of one image, its curves, and the maps of random weights."""
    maps = explain_classes(explainer, score.batch, score.classes)
    m = Measurements(
        probability=float(score.pick(score.outputs, [0])[0]),
        empty=bool((maps == 0).all()),
        constant=bool(is_constant(maps)[0]),
        ignores_class=not _knows_classes(explainer),
    )
    if m.empty or m.constant:
        return m, None, None
    curves = _measure_curves(score, maps, m, random=random, steps=steps, batch_size=batch_size, seed=seed)
    m.noise, m.classes = _measure_similarity(explainer, score, maps, names, seed)
    random_weights = cascade(explainer, score.batch, score.classes, maps, stages=stages, seed=seed)
    m.weights = [float(value) for value in random_weights.similarity[:, 0]]
    return m, curves, random_weights


def _measure_curves(
    score: ClassScore, maps: Tensor, m: Measurements, *, random: int, steps: int, batch_size: int, seed: int
) -> Curves:
    """Measure deletion, insertion and ROAD of a map [1,H,W] and of the map at random places."""
    x = score.batch.x
    moved = move_maps(maps, random, seed)[0]
    ranks = rank_pixels(torch.cat([maps, moved.to(maps)]), seed)
    baselines = make_baseline(x, "zero"), make_baseline(x, "blur")
    owners = [0] * len(ranks)
    deletion = replace_in_order(score, x, baselines[0], ranks, owners, steps=steps, batch_size=batch_size)
    insertion = replace_in_order(score, baselines[1], x, ranks, owners, steps=steps, batch_size=batch_size)
    m.deletion, *m.random_deletion = area_under_curve(deletion).tolist()
    m.insertion, *m.random_insertion = area_under_curve(insertion).tolist()
    m.blank = max(float(deletion[0, -1]), float(insertion[0, 0]))

    def remove(some: Tensor, order: Any) -> list[list[float]]:
        images = x.expand(len(some), -1, -1, -1)
        found = road_curve(
            lambda changed, _: score(changed, [0] * len(changed)),
            images,
            some,
            order=order,
            fractions=ROAD_FRACTIONS,
            batch_size=batch_size,
            seed=seed,
        )
        rows: list[list[float]] = found.tolist()
        return rows

    morf, *random_road = remove(torch.cat([maps, moved[:ROAD_RANDOM].to(maps)]), "morf")
    lerf = remove(maps, "lerf")[0]
    m.road = sum(a - b for a, b in zip(lerf, morf, strict=True)) / (2 * len(morf))
    return Curves(
        [k / steps for k in range(steps + 1)],
        deletion[0].tolist(),
        insertion[0].tolist(),
        deletion[1:].tolist(),
        insertion[1:].tolist(),
        list(ROAD_FRACTIONS),
        morf,
        lerf,
        random_road,
    )


def _measure_similarity(
    explainer: Explainer, score: ClassScore, maps: Tensor, names: list[str] | None, seed: int
) -> tuple[float, dict[str, float]]:
    """Return the similarity to the maps of noisy images (the smallest one), and to those of other classes by name."""
    batch = score.batch
    generator = torch.Generator().manual_seed(seed)
    alike = []
    for _ in range(NOISY):
        noise = torch.randn(batch.x.shape, generator=generator, dtype=torch.float32).to(batch.x)
        noisy = batch.with_images(batch.x + NOISE * batch.x.std() * noise)
        alike.append(float(rank_correlation(maps, explain_classes(explainer, noisy, score.classes))[0]))
    level = min((value for value in alike if not math.isnan(value)), default=math.nan)
    classes = {}
    for other in _choose_others(score) if _knows_classes(explainer) else []:
        found = explain_classes(explainer, batch, [other])
        if not bool(is_constant(found)[0]):
            name = get_class_title(other, names, score.outputs.shape[1])
            classes[name] = float(rank_correlation(maps, found)[0])
    return level, classes


def _choose_others(score: ClassScore) -> list[int]:
    """Return up to `OTHERS` other classes, from the most to the least probable one in even steps."""
    order = [c for c in score.outputs[0].argsort(descending=True).tolist() if c != int(score.classes[0])]
    if len(order) <= OTHERS:
        return order
    return [order[round(k * (len(order) - 1) / (OTHERS - 1))] for k in range(OTHERS)]


def _knows_classes(explainer: Explainer) -> bool:
    """Return whether the innermost explainer tells classes apart."""
    while isinstance(inner := getattr(explainer, "explainer", None), Explainer):
        explainer = inner
    return explainer.knows_classes


def _show_weights(found: Cascade) -> list[tuple[str, Tensor]]:
    """Return titles and maps in [0, 1] of the stages of a randomisation."""
    titles = [f"{share:.0%} random" for share in found.shares]
    shown = normalize_map(found.maps[:, 0].float().nan_to_num(0.0), "max").clamp(0, 1)
    return list(zip(titles, shown, strict=True))
