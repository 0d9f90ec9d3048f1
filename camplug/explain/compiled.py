"""Explainers that run as one compiled graph."""

from __future__ import annotations

import copy
import threading
import warnings
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError
from camplug.explain.base import Explainer, LayerExplainer, Result
from camplug.explain.batch import check_batch, check_size, choose_size, compute_logits, finish_maps
from camplug.explain.compiled_graph import Compute, compile_graph, trace_explainer
from camplug.explain.fuse import Fusion
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.wrapper import Wrapper, is_number, is_score
from camplug.plug import Classes, Link, MapSize, Size, Targets, list_classes, resolve_classes, unwrap

# allowed difference from the eager maps, as a share of their maximum: Fully-CAM divides by small numbers
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.2}


class Key(NamedTuple):
    """Batches that one graph computes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    rounds: int
    predict: bool


@dataclass(frozen=True)
class Graph:
    """Compiled graph of one key, with the number of classes and the kind of the outputs of the model."""

    compute: Compute
    count: int
    link: Link | None


@dataclass
class Graphs:
    """Compiled graphs of one explainer, shared by its copies.

    Attributes:
        known: graphs by what they compute.
        refused: reasons why batches cannot be compiled.
        said: reasons that were told.
        weights: identity and version of the model's tensors when the graphs were compiled.
        compilations: number of graphs compiled so far.
    """

    known: dict[Key, Graph] = field(default_factory=dict)
    refused: dict[Key, str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    weights: tuple[Any, ...] = ()
    compilations: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget_changed_weights(self, model: nn.Module) -> None:
        """Drop all graphs if a parameter or buffer was replaced or written since they were compiled."""
        tensors = [*model.parameters(), *model.buffers()]
        weights = tuple((id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        if weights != self.weights:
            self.known.clear()
            self.refused.clear()
            self.weights = weights

    def find(self, key: Key) -> Key | None:
        """Return the key of the graph for a batch, or of the smallest one for at most twice its images."""
        if key in self.known:
            return key
        n = key.shape[0]
        fits = [k for k in self.known if n < k.shape[0] <= 2 * n and _describe_images(k) == _describe_images(key)]
        return min(fits, key=lambda k: k.shape[0], default=None)


class Compiled(Wrapper):
    """Explainer whose forward pass, gradients and layer maps run as one graph, compiled by `torch.compile`.

    >>> import torch, camplug
    >>> camplug.Compiled(camplug.FullyCAM(torch.nn.Conv2d(3, 2, 3)))
    Compiled(FullyCAM(Conv2d, layers='convs'), normalize='max')

    One graph is compiled for each shape of a batch and number of classes per image, which takes minutes for a large
    network; a batch with fewer images is filled up to a compiled one of at most twice its size. The first batch of a
    shape is explained eagerly, and the graph's maps are compared with these. What cannot be compiled is explained
    eagerly, with a warning that says why: callables as classes, further inputs, explainers other than those of
    activation and gradient, models that look at the values of their tensors, more than `most` graphs.

    On the CPU, a graph holds a copy of the weights. When they change, graphs are compiled anew, which counts.

    Args:
        explainer: `FullyCAM`, `GradCAM`, `LayerCAM`, or another explainer of layers.
        most: largest number of graphs compiled in all; further shapes are explained eagerly.
        backend: backend of `torch.compile`.
        normalize: normalisation of the maps; default: the explainer's.
    """

    kind = "compiled"

    def __init__(
        self, explainer: Explainer, *, most: int = 8, backend: str = "inductor", normalize: Any = "explainer"
    ) -> None:
        super().__init__(explainer)
        if not is_number(most, int) or most < 1:
            raise InputError(f"most={most!r}; give the largest number of compiled graphs, at least 1.")
        if backend != "inductor" and backend not in torch.compiler.list_backends(exclude_tags=()):
            raise InputError(f"backend={backend!r}; allowed are the backends of torch.compile, such as 'inductor'.")
        self.normalize = explainer.normalize if normalize == "explainer" else normalize
        self.most, self.backend = most, backend
        self.graphs = Graphs()

    @property
    def compilations(self) -> int:
        """Number of graphs compiled so far."""
        return self.graphs.compilations

    @override
    def run(self, x: Tensor, classes: Classes, size: MapSize | None = None, inputs: Inputs | None = None) -> Result:
        reason = self._find_obstacle(classes, inputs)
        if reason is not None:
            return self._run_eagerly(Batch(x, inputs), classes, size, reason)
        batch = check_batch(self.model, x, images_only=False)
        sizes = check_size(batch, size)
        key = self._make_key(batch, classes)
        if key.rounds == 0:  # no classes, no maps
            return self._make_eager().run_batch(batch, classes, size)
        with torch.inference_mode(False), self.graphs.lock:
            self.graphs.forget_changed_weights(unwrap(self.model))
            found = self.graphs.find(key)
            if found is not None:
                return self._compute(found, batch, classes, sizes)
            reason, result = self._compile(key, batch, classes, sizes)
        if reason is None and result is not None:
            return result
        return self._run_eagerly(batch, classes, size, reason or "", result)

    def _find_obstacle(self, classes: Classes, inputs: Inputs | None) -> str | None:
        """Return why the call cannot be compiled; None if it may be."""
        inner = self.explainer
        if not isinstance(inner, LayerExplainer) or not inner.needs_gradient or _overrides_the_pass(inner):
            return f"{type(inner).__name__} is more than a map of activation and gradient at each layer"
        if inputs is not None:
            return "the model has further inputs"
        if is_score(classes):
            return "the score is a callable"
        if torch.is_autocast_enabled(next((p.device.type for p in self.model.parameters()), "cpu")):
            return "autocast is on"
        return None

    def _run_eagerly(
        self, batch: Batch, classes: Classes, size: MapSize | None, reason: str, result: Result | None = None
    ) -> Result:
        """Return the eager result, and say why once."""
        if reason not in self.graphs.said:
            self.graphs.said.add(reason)
            warnings.warn(f"{self.name} runs eagerly: {reason}.", stacklevel=4)
        return result or self._make_eager().run_batch(batch, classes, size)

    def _make_eager(self) -> Explainer:
        """Return the explainer with the normalisation of this one."""
        found = copy.copy(self.explainer)
        found.normalize = self.normalize
        return found

    def _compile(self, key: Key, batch: Batch, classes: Classes, sizes: list[Size]) -> tuple[str | None, Result | None]:
        """Compile a graph for later batches; return why not, if so, and the eager result if it was computed."""
        graphs = self.graphs
        if key in graphs.refused:
            return graphs.refused[key], None
        if graphs.compilations >= self.most:
            return f"{self.most} graphs are compiled already (most=), and this batch needs another one", None
        result = self._make_eager().run_batch(batch, classes, choose_size(sizes))
        reason = self._add_graph(key, batch, result, sizes)
        if reason is not None:
            graphs.known.pop(key, None)
            graphs.refused[key] = reason
        return reason, result

    def _add_graph(self, key: Key, batch: Batch, want: Result, sizes: list[Size]) -> str | None:
        """Compile a graph and compare its maps with eager ones; return why it cannot be used, if so."""
        if want.logits is None or want.targets.rounds != key.rounds or (key.predict and want.logits.shape[1] == 1):
            return "the classes are no columns of one output of logits"
        self.graphs.compilations += 1
        try:
            traced = trace_explainer(cast("LayerExplainer", self.explainer), _lay_out(batch), key.rounds, key.predict)
            compute = compile_graph(traced, batch.x.device, self.backend)
            self.graphs.known[key] = Graph(compute, want.logits.shape[1], want.targets.link)
            classes = None if key.predict else [list(row) for row in want.targets.classes]
            got = self._compute(key, batch, classes, sizes)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of tracing, of the compiler, of its C++ compiler
            text = (str(error).strip().splitlines() or [""])[0][:200]
            return f"the model cannot be compiled ({type(error).__name__}: {text})"
        if not _are_close(got, want):
            return "the compiled graph gives other maps (does the model depend on chance, or on more than its input?)"
        return None

    def _make_key(self, batch: Batch, classes: Classes) -> Key:
        """Return the key of a batch with these classes (no callable)."""

        def count() -> int:
            known = next(iter(self.graphs.known.values()), None)
            return compute_logits(self.model, batch).shape[1] if known is None else known.count

        x, rounds = _lay_out(batch).x, 1
        if classes is not None:
            rounds = max((len(row) for row in list_classes(classes, len(batch), count)[0]), default=0)
        return Key(tuple(x.shape), x.stride(), x.dtype, x.device, rounds, classes is None)

    def _compute(self, key: Key, batch: Batch, classes: Classes, sizes: list[Size]) -> Result:
        """Return the maps of a batch from a compiled graph for at least as many images."""
        batch = _lay_out(batch)
        graph, n, room = self.graphs.known[key], len(batch), key.shape[0]
        placeholder = torch.zeros(n, graph.count, dtype=batch.x.dtype, device=batch.x.device)
        targets = resolve_classes(classes, placeholder, n, self.evidence, link=graph.link or "logits")
        x = batch.x
        if room > n:
            x = torch.empty_strided(key.shape, key.strides, dtype=x.dtype, device=x.device)
            x[:n], x[n:] = batch.x, batch.x[-1:]
        maps, logits = graph.compute(x, *_make_index(targets, key, x))
        logits = logits[:n]
        if key.predict:
            targets = resolve_classes(None, logits, n, self.evidence, link=graph.link)
        targets = replace(targets, link=graph.link)
        targets.check(logits)
        fusions = []
        for sums in maps:
            fusion = Fusion()
            for one in sums:
                fusion.add(one[:n], 1)
            fusions.append(fusion)
        return Result(finish_maps(fusions, targets, batch.x, sizes, self.normalize), targets, logits)


def _overrides_the_pass(explainer: LayerExplainer) -> bool:
    kind = type(explainer)
    return kind.run is not LayerExplainer.run or kind.fuse_rounds is not LayerExplainer.fuse_rounds


def _lay_out(batch: Batch) -> Batch:
    """Return the batch in channels_last on the CPU, which is faster for graphs with reordered weights."""
    x = batch.x
    if x.device.type != "cpu" or x.ndim != 4:
        return batch
    return batch.with_images(x.contiguous(memory_format=torch.channels_last))


def _describe_images(key: Key) -> tuple[Any, ...]:
    """Return what must agree for a batch to be computed by the graph of more images."""
    return (key.shape[1:], key.dtype, key.device, key.rounds, key.predict)


def _make_index(targets: Targets, key: Key, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return classes and signs [R,N] of a graph's images; images without an r-th class have the sign 0."""
    classes = torch.zeros(key.rounds, key.shape[0], dtype=torch.long)
    signs = torch.zeros(key.rounds, key.shape[0], dtype=x.dtype)
    for r in range(min(key.rounds, targets.rounds)):
        images, chosen = targets.get_round(r)
        classes[r, images] = torch.tensor(chosen)
        signs[r, images] = torch.tensor(targets.get_signs(r), dtype=x.dtype)
    return classes.to(x.device), signs.to(x.device)


def _are_close(got: Result, want: Result) -> bool:
    """Return whether maps and logits agree up to rounding."""
    for a, b in zip([*got.maps, got.logits], [*want.maps, want.logits], strict=True):
        if a is None or b is None or a.shape != b.shape:
            return False
        allowed = TOLERANCES.get(want.logits.dtype, 0.0) if want.logits is not None else 0.0
        if b.numel() and not bool(((a - b).abs() <= allowed * b.abs().max()).all()):
            return False
    return True
