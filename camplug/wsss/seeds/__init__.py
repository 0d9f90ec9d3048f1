"""Seeds: activation maps of a data set, with their folders, scores and thresholds."""

from camplug.wsss.seeds.average import average_seed_maps, make_average_seeds
from camplug.wsss.seeds.make import choose_batch, find_output_names, make_seeds, prepare_seeds
from camplug.wsss.seeds.otsu import compute_otsu_of_seeds, compute_otsu_thresholds, count_strongest_values
from camplug.wsss.seeds.predicted_labels import PredictedLabels
from camplug.wsss.seeds.score import list_thresholds, score_labels, score_seeds
from camplug.wsss.seeds.settings import SeedSettings
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.seed_folder import Seed, SeedFolder

__all__ = [
    "PredictedLabels",
    "Report",
    "Seed",
    "SeedFolder",
    "SeedSettings",
    "list_thresholds",
    "make_seeds",
    "average_seed_maps",
    "make_average_seeds",
    "prepare_seeds",
    "choose_batch",
    "find_output_names",
    "compute_otsu_of_seeds",
    "compute_otsu_thresholds",
    "score_labels",
    "score_seeds",
    "count_strongest_values",
]
