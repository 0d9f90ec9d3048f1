"""Base class of methods that read activations alone and show the same for every class."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from camplug.explain.base import LayerExplainer
from camplug.explain.batch import choose_calls
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch
from camplug.plug import Tape, Targets


class ActivationExplainer(LayerExplainer):
    """Base class of methods that compute a layer's map from its activation, without class and gradient."""

    needs_gradient: ClassVar[bool] = False
    knows_classes: ClassVar[bool] = False

    @abstractmethod
    def activation_map(self, activation: Tensor) -> Tensor:
        """Compute a layer's map [N,h,w] from its activation [N,K,h,w]."""

    @override
    def layer_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return self.activation_map(activation)

    @override
    def fuse_rounds(self, tape: Tape, output: Any, targets: Targets, batch: Batch) -> list[Fusion]:
        if targets.score is not None:
            targets.compute_scores(output, 0)  # raises for NaN
        with torch.autocast(batch.x.device.type, enabled=False):
            maps = [
                self.make_layer_map(layer, activation, activation, batch)
                for layer, activation in choose_calls(tape, self.call)
            ]
        return [self.fuse(maps)] * targets.rounds
