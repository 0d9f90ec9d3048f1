"""Trust: metrics of several explainers beside each other, streamed over a data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.base import Explainer
from camplug.explain.batch import check_batch
from camplug.trust.bootstrap import Interval, bootstrap_mean
from camplug.trust.registry import Metric, find_metrics
from camplug.trust.score import ClassScore
from camplug.trust.trial import Settings, Trial

DEFAULT_METRICS = ("deletion", "insertion", "confidence_*", "sparseness", "complexity", "*pointing_game")


class Trust:
    """Metrics of explainers of one model, with means and bootstrap confidence intervals.

    All explainers see the same images, classes and baselines; changed images of all of them go through the model in
    batches of at most `Settings.batch_size`.

    Args:
        explainers: one explainer, several, or several by name.
        metrics: names or wildcard patterns of `list_metrics`; default: those that cost few passes. Metrics that need
            masks are left out of a pattern where none are given.
        settings: settings of the metrics.

    Raises:
        InputError: no explainer, explainers of different models, or an unknown metric.
    """

    def __init__(
        self,
        explainers: Explainer | Sequence[Explainer] | Mapping[str, Explainer],
        metrics: str | Sequence[str] = DEFAULT_METRICS,
        settings: Settings | None = None,
    ) -> None:
        self.explainers = _name_explainers(explainers)
        first = next(iter(self.explainers.values()))
        if any(e.model is not first.model or e.evidence != first.evidence for e in self.explainers.values()):
            raise InputError("the explainers have different models or kinds of evidence; give those of one model.")
        self.metrics: list[Metric] = find_metrics(metrics)
        self.exact = {metrics} if isinstance(metrics, str) else set(metrics)
        self.settings = settings or Settings()
        self.model, self.evidence = first.model, first.evidence
        self._values: dict[tuple[str, str], list[NDArray[np.float64]]] = defaultdict(list)

    def add(self, x: Tensor, classes: Any = None, *, masks: Tensor | None = None, inputs: Any = None) -> Self:
        """Measure a batch of images.

        Args:
            x: images [N,C,H,W], normalised as the model wants them, on the model's device.
            classes: an int for all images, one per image, or None for the predicted classes.
            masks: bool [N,H,W], true in the object of the class, for the pointing games.
            inputs: the model's other inputs, see `Explainer.maps`.

        Raises:
            InputError: the images or masks do not fit, or a metric needs masks and there are none.
            TargetError: a class that the model does not have.
        """
        batch = check_batch(self.model, x, inputs)
        score = ClassScore(self.model, batch, classes, evidence=self.evidence)
        chosen = [m for m in self.metrics if masks is not None or not m.needs_masks]
        missing = [m.name for m in self.metrics if m not in chosen and m.name in self.exact]
        if missing:
            raise InputError(f"the metric {missing[0]!r} compares with masks of the objects; give masks=.")
        if masks is not None and masks.shape != (len(batch), *batch.size):
            raise InputError(f"the masks are {list(masks.shape)} for images {list(x.shape)}; give [N,H,W].")
        explainers = list(self.explainers.values())
        results = [e.run_batch(batch, [[c] for c in score.classes]) for e in explainers]
        maps = torch.stack([torch.cat(result.maps) for result in results])
        told = next((r.targets.link for r in results if r.targets.link is not None), None)
        score.link = told or score.link  # the graph shows what the values alone may not
        trial = Trial(explainers, batch, score, maps, masks, self.settings)
        measured = {metric.name: metric.compute(trial).cpu().numpy() for metric in chosen}
        for name, values in measured.items():  # all or nothing, so that an error leaves no half of a batch
            for explainer, row in zip(self.explainers, values, strict=True):
                self._values[explainer, name].append(row)
        return self

    def values(self, explainer: str, metric: str) -> NDArray[np.float64]:
        """Return the values of one metric for all images so far, [N] in the order in which they were added."""
        parts = self._values.get((explainer, metric), [])
        return np.concatenate(parts) if parts else np.zeros(0)

    def compute(self, *, confidence: float = 0.95, draws: int = 2000) -> dict[str, dict[str, Interval]]:
        """Return the mean and its interval by explainer and metric; see `bootstrap_mean`.

        The intervals of all explainers come from the same samples of images.
        """
        return {
            e: {
                m.name: bootstrap_mean(
                    self.values(e, m.name), confidence=confidence, draws=draws, seed=self.settings.seed
                )
                for m in self.metrics
                if (e, m.name) in self._values
            }
            for e in self.explainers
        }

    def as_table(self, *, confidence: float = 0.95) -> str:
        """Return the means and intervals as a Markdown table."""
        found = self.compute(confidence=confidence)
        shown = [m for m in self.metrics if any(m.name in row for row in found.values())]
        arrows = {"higher": "(+)", "lower": "(-)"}
        lines = [
            "| explainer | " + " | ".join(f"{m.name} {arrows[m.better]}" for m in shown) + " |",
            "|---" * (len(shown) + 1) + "|",
        ]
        for name, row in found.items():
            cells = [f"{row[m.name].mean:.3f} [{row[m.name].low:.3f}, {row[m.name].high:.3f}]" for m in shown]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _name_explainers(given: Explainer | Sequence[Explainer] | Mapping[str, Explainer]) -> dict[str, Explainer]:
    """Return explainers by name; a name that comes again gets a number."""
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        named = {}
        for one in [given] if isinstance(given, Explainer) else list(given):
            name = plain = getattr(one, "name", "") or type(one).__name__
            count = 2
            while name in named:
                name, count = f"{plain} {count}", count + 1
            named[name] = one
    if not named or not all(isinstance(e, Explainer) for e in named.values()):
        raise InputError("trust is measured for one or more explainers, for instance camplug.GradCAM(model).")
    return named
