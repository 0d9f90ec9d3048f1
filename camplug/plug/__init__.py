"""The plug: layer selection, the tape of activations and gradients, targets, tokens on a grid. Knows torch only."""

from camplug.plug.dense import dense
from camplug.plug.grid import patch_size, to_grid
from camplug.plug.guard import first_weight, unwrap
from camplug.plug.layers import SELECTORS, Selector, named_layers, select
from camplug.plug.outline import Outline, watch
from camplug.plug.tape import Layer, Tape
from camplug.plug.targets import Classes, Score, Targets, logits_of, resolve, spelled_out
from camplug.plug.tensors import index_on, pick, send

__all__ = [
    "SELECTORS",
    "Classes",
    "Layer",
    "Outline",
    "Score",
    "Selector",
    "Tape",
    "Targets",
    "dense",
    "first_weight",
    "index_on",
    "logits_of",
    "named_layers",
    "patch_size",
    "pick",
    "resolve",
    "select",
    "send",
    "spelled_out",
    "to_grid",
    "unwrap",
    "watch",
]
