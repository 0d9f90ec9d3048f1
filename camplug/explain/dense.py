"""Wrapper that runs an explainer at a finer output stride."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch
from camplug.explain.inputs import Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper
from camplug.plug import Classes, MapSize, dense
from camplug.plug.dense import check_stride


@register_wrapper("dense")
class Dense(Wrapper):
    """Run an explainer with its model at a finer output stride; see `camplug.dense`.

    Needs no training; the model is restored after every call. Other threads that use the model meanwhile see it dense,
    too; other `Dense` explainers of the model wait.

    Args:
        explainer: any explainer of a convolutional network.
        output_stride: image pixels per position of the last map, a power of two.

    Raises:
        InputError: the output stride is no power of two.
        ModelError: at call time, the model cannot be made dense (such as a transformer).
    """

    def __init__(self, explainer: Explainer, output_stride: int = 8) -> None:
        super().__init__(explainer, normalize=getattr(explainer, "normalize", "max"))
        self.output_stride = check_stride(output_stride)

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        batch = check_batch(self.model, x, inputs)
        first = batch.take([0])
        arguments = None if first.inputs is None else first.inputs.make_arguments
        with dense(self.model, self.output_stride, example=first.x, arguments=arguments):
            return self.explainer.run_batch(batch, classes, size)
