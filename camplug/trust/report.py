"""Verdict on one map: is it trustworthy, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from camplug.explain.explanation import Explanation
from camplug.json_values import to_json_number
from camplug.trust.bootstrap import share_as_good

if TYPE_CHECKING:
    from PIL.Image import Image

Verdict: TypeAlias = Literal["trustworthy", "doubtful", "untrustworthy"]

LEVEL = 0.05
"""Share of maps at random places that are trustworthy by chance."""


@dataclass
class Curves:
    """Curves of a map and of the same map at R random places.

    Attributes:
        fractions: places [S+1] of the deletion and insertion curves.
        deletion, insertion: scores [S+1].
        random_deletion, random_insertion: scores [R,S+1].
        road_fractions: places [F] of the ROAD curves.
        morf, lerf: scores [F] after the most and the least relevant pixels were removed.
        random_road: scores [r,F] of few maps at random places.
    """

    fractions: list[float]
    deletion: list[float]
    insertion: list[float]
    random_deletion: list[list[float]]
    random_insertion: list[list[float]]
    road_fractions: list[float]
    morf: list[float]
    lerf: list[float]
    random_road: list[list[float]]


@dataclass
class Measurements:
    """Numbers of one map; nan or empty where they could not be measured.

    Attributes:
        probability: probability of the class for the image.
        blank: probability for the image without evidence, the larger one of both baselines.
        deletion, insertion: areas under the curves.
        random_deletion, random_insertion: areas [R] of the map at random places.
        road: combined ROAD score.
        noise: rank correlation with the maps of noisy images, the smallest of few; the level of "the same map".
        weights: rank correlation with the map of each stage of the randomisation.
        classes: rank correlation with the map of each other class, by name.
        empty, constant: the map is 0, or has one value.
        ignores_class: the method shows the same for every class by definition.
    """

    probability: float
    blank: float = float("nan")
    deletion: float = float("nan")
    insertion: float = float("nan")
    random_deletion: list[float] = field(default_factory=list)
    random_insertion: list[float] = field(default_factory=list)
    road: float = float("nan")
    noise: float = float("nan")
    weights: list[float] = field(default_factory=list)
    classes: dict[str, float] = field(default_factory=dict)
    empty: bool = False
    constant: bool = False
    ignores_class: bool = False

    @property
    def gap(self) -> float:
        """Area under the insertion curve minus that under the deletion curve; higher is better."""
        return self.insertion - self.deletion

    @property
    def random_gaps(self) -> list[float]:
        """Gaps of the map at random places."""
        return [i - d for i, d in zip(self.random_insertion, self.random_deletion, strict=True)]

    @property
    def chance(self) -> float:
        """Share of the maps at random places that are as good, this map counted; see `share_as_good`."""
        return share_as_good(self.gap, self.random_gaps)

    @property
    def same_weights(self) -> bool:
        """Random weights change the map no more than noise in the image does."""
        return bool(self.weights) and self.weights[-1] >= self.noise

    @property
    def same_classes(self) -> bool:
        """Other classes change the map no more than noise in the image does."""
        return bool(self.classes) and all(value >= self.noise for value in self.classes.values())


@dataclass
class TrustReport:
    """Verdict on one map with its reasons.

    Attributes:
        verdict: "trustworthy", "doubtful" or "untrustworthy".
        reasons: sentences with the numbers behind the verdict.
        warnings: sentences on what is wrong with the map or limits the test.
        measured: the numbers.
        explanation: the photograph with its map.
        curves: curves for the picture; None for an empty or constant map.
        randomized: titles and maps [h,w] of the model with randomised weights, in [0, 1].
    """

    verdict: Verdict
    reasons: list[str]
    warnings: list[str]
    measured: Measurements
    explanation: Explanation
    curves: Curves | None = None
    randomized: list[tuple[str, Tensor]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return verdict, reasons and numbers for JSON, with None for what could not be measured."""
        m, one = self.measured, self.explanation
        known = bool(m.random_deletion)
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "method": one.method,
            "class": {"index": int(one.classes[0]), "name": one.names[0]},
            "numbers": {
                "probability": to_json_number(m.probability, 6),
                "blank_probability": to_json_number(m.blank, 6),
                "deletion": to_json_number(m.deletion, 6),
                "deletion_at_random": to_json_number(float(np.mean(m.random_deletion)) if known else float("nan"), 6),
                "insertion": to_json_number(m.insertion, 6),
                "insertion_at_random": to_json_number(float(np.mean(m.random_insertion)) if known else float("nan"), 6),
                "as_good_at_random": to_json_number(m.chance if known else float("nan"), 6),
                "road": to_json_number(m.road, 6),
                "similarity_under_noise": to_json_number(m.noise, 6),
                "similarity_with_random_weights": [to_json_number(v, 6) for v in m.weights],
                "similarity_of_other_classes": {name: to_json_number(v, 6) for name, v in m.classes.items()},
            },
        }

    def picture(self) -> Image:
        """Return the photograph, the map, the curves and the maps of random weights in one picture."""
        from camplug.trust.picture import draw_report

        return draw_report(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture (.png, .jpg, .webp).

        Raises:
            InputError: another ending, or the place cannot be written.
        """
        from camplug.images.save import save_picture

        save_picture(self.picture(), os.fspath(path))


def decide_verdict(m: Measurements) -> Verdict:
    """Return the verdict on a map from its numbers.

    "untrustworthy" without a place to show (empty or constant), if it is the same for random weights, or if it is no
    better than half of the maps at random places; "trustworthy" if at most a share of `LEVEL` of them is as good, and
    neither ROAD nor other classes speak against it; else "doubtful".
    """
    if m.empty or m.constant or m.same_weights or m.chance > 0.5:
        return "untrustworthy"
    spoken_against = m.road <= 0 or m.same_classes or m.ignores_class or m.blank >= m.probability
    return "doubtful" if spoken_against or m.chance > LEVEL else "trustworthy"


def list_reasons(m: Measurements) -> list[str]:
    """Return the sentences with the numbers behind the verdict."""
    if m.empty or m.constant:
        return []
    count = len(m.random_deletion)
    better = sum(value < m.gap for value in m.random_gaps)
    lower, higher = float(np.mean(m.random_deletion)), float(np.mean(m.random_insertion))
    falls, rises = (_compare(gain) for gain in (lower - m.deletion, m.insertion - higher))
    reasons = [
        f"deleting what the map shows first lowers the probability {falls} the same "
        f"map at random places: mean probability {m.deletion:.2f} against {lower:.2f}.",
        f"inserting what the map shows first raises the probability {rises} the same "
        f"map at random places: mean probability {m.insertion:.2f} against {higher:.2f}.",
        f"insertion minus deletion is better than at {better} of {count} random places.",
    ]
    if not np.isnan(m.road):
        says = "keeps more" if m.road > 0 else "does not keep more"
        reasons.append(
            f"removing the least relevant pixels (ROAD) {says} of the probability than removing the most relevant ones:"
            f" {m.road:+.2f}, chance is 0."
        )
    if m.weights and not m.same_weights and not np.isnan(m.weights[-1]):
        reasons.append(
            f"the map depends on what the model has learned: with random weights its rank correlation is "
            f"{m.weights[-1]:.2f}, with noise in the photograph {m.noise:.2f}."
        )
    if m.classes and not m.same_classes:
        name, least = min(m.classes.items(), key=lambda pair: pair[1])
        reasons.append(f"the map depends on the class: the rank correlation with the map of {name!r} is {least:.2f}.")
    return reasons


def list_warnings(m: Measurements, evidence: str = "positive") -> list[str]:
    """Return the sentences on what is wrong with the map, or limits the test."""
    if m.empty:
        return [f"the map is empty: the method finds no {evidence} evidence for the class."]
    if m.constant:
        return ["the map is constant: it has the same value at every pixel, so that it shows no place."]
    found = []
    if m.same_weights:
        found.append(
            f"the map does not depend on the weights: with random weights its rank correlation is {m.weights[-1]:.2f}, "
            f"with noise in the photograph {m.noise:.2f}; it shows the image rather than what the model has learned."
        )
    if m.ignores_class:
        found.append("the method shows the same map for every class; it does not explain this class.")
    elif m.same_classes:
        least = min(m.classes.values())
        found.append(
            f"the map does not depend on the class: the rank correlation with the maps of {len(m.classes)} other "
            f"classes is at least {least:.2f}, with noise in the photograph {m.noise:.2f}."
        )
    if m.blank >= m.probability:
        found.append(
            f"the image without evidence has a probability of {m.blank:.2f}, the photograph {m.probability:.2f}; "
            "deletion and insertion say little here."
        )
    if m.road <= 0:
        found.append("ROAD speaks against the map: it does not tell the most relevant pixels from the least relevant.")
    return found


def _compare(gain: float) -> str:
    return "faster than" if gain > 0 else "slower than" if gain < 0 else "no faster than"
