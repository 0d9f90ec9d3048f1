"""The plug: layer selection, the tape of activations and gradients, targets, tokens on a grid. Knows torch only."""

from camplug.plug.dense import dense
from camplug.plug.grid import layout, patch_size, to_grid
from camplug.plug.guard import first_weight, unwrap
from camplug.plug.labels import Against, is_label_vector, spelled_out
from camplug.plug.layers import SELECTORS, Selector, named_layers, select
from camplug.plug.outline import Outline
from camplug.plug.outputs import Link, are_probabilities, link_of, logits_of
from camplug.plug.tape import Layer, Tape
from camplug.plug.targets import Classes, Evidence, Score, Targets, UndecidedError, resolve
from camplug.plug.tensors import index_on, pick, send
from camplug.plug.watch import copied, observe, watch

__all__ = [
    "SELECTORS",
    "Against",
    "Classes",
    "Evidence",
    "Layer",
    "Link",
    "Outline",
    "Score",
    "Selector",
    "Tape",
    "Targets",
    "UndecidedError",
    "are_probabilities",
    "copied",
    "dense",
    "first_weight",
    "index_on",
    "layout",
    "is_label_vector",
    "link_of",
    "logits_of",
    "named_layers",
    "observe",
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
