"""Measures of whether a map is trustworthy: pure functions, `Trust` for data sets, and `check` for one photograph.

`check` gives a verdict with its reasons; `Trust` gives means with confidence intervals of several explainers beside
each other. The functions take a `Score`, for instance `ClassScore`, images [N,C,H,W] and maps [N,H,W] of any origin.
Depends on torch, `camplug.plug` and `camplug.explain`.

>>> import camplug, torch
>>> from torch import nn
>>> torch.manual_seed(0)  # doctest: +ELLIPSIS
<torch...>
>>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
>>> trust = Trust(camplug.LayerCAM(net, "0"), metrics=("deletion", "sparseness"))
>>> found = trust.add(torch.randn(4, 3, 16, 16)).compute()
>>> found["layercam"]["deletion"].count
4
"""

from camplug.trust.bootstrap import Interval, bootstrap_mean, share_as_good
from camplug.trust.check import check
from camplug.trust.concentration import complexity, sparseness
from camplug.trust.confidence import confidence_drop, confidence_gain, confidence_increase, mask_images
from camplug.trust.curves import area_under_curve, deletion_curve, insertion_curve
from camplug.trust.imputation import impute_pixels
from camplug.trust.localization import energy_pointing_game, fill_boxes, pointing_game
from camplug.trust.perturb import Baseline, make_baseline, move_maps, rank_pixels
from camplug.trust.randomize import Cascade, cascade, explain_classes, randomize_layers
from camplug.trust.registry import Metric, list_metrics, register_metric
from camplug.trust.report import TrustReport
from camplug.trust.road import road, road_curve
from camplug.trust.robustness import infidelity, max_sensitivity, mean_squared_misfit
from camplug.trust.score import ClassScore, Score
from camplug.trust.similarity import compare_maps, cosine_similarity, rank_correlation, structural_similarity
from camplug.trust.trial import Settings, Trial
from camplug.trust.trust import Trust

__all__ = [
    "Baseline",
    "Cascade",
    "ClassScore",
    "Interval",
    "Metric",
    "Score",
    "Settings",
    "Trial",
    "Trust",
    "TrustReport",
    "area_under_curve",
    "bootstrap_mean",
    "cascade",
    "check",
    "compare_maps",
    "complexity",
    "confidence_drop",
    "confidence_gain",
    "confidence_increase",
    "cosine_similarity",
    "deletion_curve",
    "energy_pointing_game",
    "explain_classes",
    "fill_boxes",
    "impute_pixels",
    "infidelity",
    "insertion_curve",
    "list_metrics",
    "make_baseline",
    "mask_images",
    "max_sensitivity",
    "mean_squared_misfit",
    "move_maps",
    "pointing_game",
    "randomize_layers",
    "rank_correlation",
    "rank_pixels",
    "register_metric",
    "road",
    "road_curve",
    "share_as_good",
    "sparseness",
    "structural_similarity",
]
