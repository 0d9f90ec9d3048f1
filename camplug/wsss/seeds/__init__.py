"""Seeds: the activation maps of a whole data set, made, kept and scored."""

from camplug.wsss.seeds.make import make_seeds, names_for
from camplug.wsss.seeds.otsu import otsu_of_seeds, otsu_thresholds, strongest_values
from camplug.wsss.seeds.score import score_labels, score_seeds
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.seed_folder import Seed, SeedFolder

__all__ = [
    "Report",
    "Seed",
    "SeedFolder",
    "make_seeds",
    "names_for",
    "otsu_of_seeds",
    "otsu_thresholds",
    "score_labels",
    "score_seeds",
    "strongest_values",
]
