"""Progress bar of trainings in one line of 80 columns."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import BarColumn
from typing_extensions import override


class TrainingProgressBar(RichProgressBar):
    """Progress bar of Lightning without the steps per second, and with a bar that is as wide as the console allows."""

    @override
    def configure_columns(self, trainer: Any) -> list[Any]:
        description, _, batches, times, *_ = super().configure_columns(trainer)
        assert self._console is not None
        return [description, BarColumn(bar_width=max(4, min(40, self._console.width - 68))), batches, times]

    @override
    def get_metrics(self, trainer: Any, pl_module: Any) -> Any:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
