"""Layer selection, recording of activations and gradients, targets, and token grids. Depends on torch only."""

from camplug.plug.class_lists import Against, is_label_vector, list_classes, mark_index
from camplug.plug.dense import dense
from camplug.plug.freeze import find_first_weight, unwrap
from camplug.plug.grid import (
    MapSize,
    Size,
    count_spatial_dims,
    find_layout,
    find_size_multiple,
    get_patch_size,
    to_grid,
)
from camplug.plug.layers import SELECTORS, Selector, named_layers, select
from camplug.plug.outputs import Link, are_probabilities, find_link, get_logits
from camplug.plug.tape import AttentionCall, Layer, Tape
from camplug.plug.targets import Classes, Evidence, Score, Targets, UndecidedError, resolve_classes
from camplug.plug.tensors import make_index, pick_values, resolve_device, send_to
from camplug.plug.trace import Trace
from camplug.plug.tracer import copy_inputs, observe, trace_model

__all__ = [
    "SELECTORS",
    "Against",
    "AttentionCall",
    "Classes",
    "Evidence",
    "Layer",
    "Link",
    "Score",
    "Selector",
    "MapSize",
    "Size",
    "Tape",
    "Targets",
    "Trace",
    "UndecidedError",
    "are_probabilities",
    "copy_inputs",
    "count_spatial_dims",
    "dense",
    "find_link",
    "find_first_weight",
    "get_logits",
    "is_label_vector",
    "find_layout",
    "list_classes",
    "mark_index",
    "make_index",
    "named_layers",
    "observe",
    "find_size_multiple",
    "get_patch_size",
    "pick_values",
    "resolve_classes",
    "resolve_device",
    "select",
    "send_to",
    "to_grid",
    "trace_model",
    "unwrap",
]
