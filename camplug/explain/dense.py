"""An explainer at a finer output stride."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from camplug.explain.base import Explainer, Result
from camplug.explain.batch import check_batch
from camplug.explain.inputs import Inputs
from camplug.explain.registry import register_wrapper
from camplug.explain.wrapper import Wrapper
from camplug.plug import Classes, dense
from camplug.plug.dense import check_stride


@register_wrapper("dense")
class Dense(Wrapper):
    """Runs an explainer while its model computes at a finer output stride; see `camplug.dense`.

    The same weights, no training; the model is as before after every call. Inside other wrappers or around them. While
    it runs, other threads that use the model see it dense, too; other `Dense` explainers of the model wait.

    Args:
        explainer: any explainer of a convolution network.
        output_stride: pixels of the image per position of the last map, a power of two.

    Raises:
        InputError: an output stride that is no power of two.
        ModelError: at call time, the model cannot be made dense (a transformer, say).
    """

    def __init__(self, explainer: Explainer, output_stride: int = 8) -> None:
        super().__init__(explainer, normalize=getattr(explainer, "normalize", "max"))
        self.output_stride = check_stride(output_stride)

    @override
    def run(
        self, x: Tensor, classes: Classes, size: tuple[int, int] | None = None, inputs: Inputs | None = None
    ) -> Result:
        batch = check_batch(self.model, x, inputs)
        first = batch.take([0])
        arguments = None if first.inputs is None else first.inputs.arguments
        with dense(self.model, self.output_stride, example=first.x, arguments=arguments):
            return self.explainer.run_batch(batch, classes, size)
