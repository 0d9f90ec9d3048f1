"""Scores of a network with changed copies of a layer's output; the part before the layer runs once if it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.explain.batch import call_model
from camplug.explain.inputs import Batch
from camplug.explain.masked_scores import Probabilities, read_scores
from camplug.plug import Layer, Tape, Targets, unwrap
from camplug.plug.grid import Layout
from camplug.plug.hooks import NullListener, hook_calls
from camplug.plug.tensors import find_first_tensor

Change = Callable[[Tensor, int], None]
"""Function that overwrites copies of a layer's output, the copies as first dimension, given the number of the first."""


def find_output_layout(model: nn.Module, image: Batch, layer: Layer) -> Layout | None:
    """Return the arrangement of a layer's output; None if it has none."""
    trace = image.trace(unwrap(model))
    return trace.find_layout(next(c for c in trace.calls if c.name == layer.name))


class ChangedLayer:
    """Scores of one image for changed copies of a layer's output.

    The network up to the layer runs once for all copies, where the rest takes a batch of another size from there on
    (checked by copies that are not changed); otherwise all of it runs for every copy.

    Args:
        model: the model.
        image: the image with the model's other inputs, a batch of one.
        targets: its targets.
        layer: the call of the layer.
        image_dim: dimension of the images in the layer's output.
        probabilities: function from logits to the probabilities that count instead of the outputs.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Batch,
        targets: Targets,
        layer: Layer,
        image_dim: int,
        *,
        probabilities: Probabilities | None = None,
    ) -> None:
        self.model, self.image, self.targets, self.layer, self.image_dim = model, image, targets, layer, image_dim
        self.probabilities = probabilities
        with Tape(model, [""], forward_only=True, image=image.where):
            self.plain = read_scores(call_model(model, image), targets, 1, probabilities)[0]
        """Scores [K] of the unchanged image."""
        self._alone = self._runs_from()

    def score(self, count: int, change: Change, batch_size: int) -> Tensor:
        """Return the scores [M,K] of M copies.

        Args:
            count: M.
            change: function that changes the copies.
            batch_size: copies per forward pass.
        """
        found = []
        for first in range(0, count, batch_size):
            size = min(batch_size, count - first)
            given = self.image if self._alone else self.image.take([0] * size)
            found.append(self._score(given, _Replacement(self.layer, self.image_dim, size, first, change)))
        return torch.cat(found)

    def _score(self, image: Batch, replacement: _Replacement) -> Tensor:
        with Tape(self.model, [""], forward_only=True, image=image.where), hook_calls(replacement):
            output = call_model(self.model, image)
        return read_scores(output, self.targets, replacement.count, self.probabilities)

    def _runs_from(self) -> bool:
        """Return whether the model takes several copies from the layer on: unchanged ones give the plain scores."""
        replacement = _Replacement(self.layer, self.image_dim, 2, 0, lambda copies, first: None)
        try:
            scores = self._score(self.image, replacement)
        except Exception:  # a model may raise anything where the batch grows in the middle
            return False
        return torch.allclose(scores, self.plain.expand_as(scores), rtol=1e-3, atol=1e-4)


class _Replacement(NullListener):
    """Replace a layer's output by changed copies."""

    def __init__(self, layer: Layer, image_dim: int, count: int, first: int, change: Change) -> None:
        self.layer, self.image_dim, self.count, self.first, self.change = layer, image_dim, count, first, change
        self.calls = 0

    @override
    def after(self, module: nn.Module, output: Any) -> Any:
        if module is not self.layer.module:
            return None
        self.calls += 1
        out, put_back = find_first_tensor(output)
        if self.calls - 1 != self.layer.call or out is None:
            return None
        shape = list(out.shape)
        shape[self.image_dim] = self.count
        copies = out.expand(shape).clone()
        self.change(copies.movedim(self.image_dim, 0), self.first)
        return put_back(copies)
