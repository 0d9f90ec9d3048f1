"""Settings of seeds."""

from __future__ import annotations

from dataclasses import dataclass

from camplug.errors import InputError
from camplug.wsss.store.seed_folder import MapStorage


@dataclass(frozen=True)
class MethodSettings:
    """Method of the maps, and size of the photographs.

    Args:
        explainer: "best", or a method written as in Python, "MultiView(FullyCAM, flip=False)" for instance.
        long_side: longer side of the photographs as the model sees them; none is the model's own size.
    """

    explainer: str = "MultiView(CAM)"
    long_side: int | None = None


@dataclass(frozen=True)
class SeedSettings(MapStorage, MethodSettings):
    """Settings of the maps of a data set, for the command `camplug seeds` and recipes.

    Args:
        batch: most photographs of one size that are explained together, which changes time and memory and no result;
            none is 8 on CUDA and 1 elsewhere.

    Raises:
        InputError: another type of stored maps, or a size that they cannot have; a batch below 1.
    """

    batch: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_batch_setting(self.batch)


def check_batch_setting(batch: int | None) -> None:
    """Check the maximum number of photographs explained together.

    Raises:
        InputError: it is below 1.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch={batch}; give at least 1.")
