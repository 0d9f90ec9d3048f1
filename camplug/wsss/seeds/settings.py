"""Settings of seeds."""

from __future__ import annotations

from dataclasses import dataclass

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

    Raises:
        InputError: another type of stored maps, or a size that they cannot have.
    """
