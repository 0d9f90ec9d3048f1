"""Attention probabilities in a forward pass: fused attention is replaced by its explicit computation."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from camplug.plug import hooks


class AttentionInputs(NamedTuple):
    """Tensors that an attention was computed from, detached.

    Attributes:
        query: queries [N,heads,T,d]; None if the model's own computation does not show them.
        key: keys [N,heads,S,d]; None like the queries.
        value: values [N,heads,S,d].
        path: modules that were running, from the outermost to the innermost.
    """

    query: Tensor | None
    key: Tensor | None
    value: Tensor
    path: tuple[nn.Module, ...]


Read = Callable[[Tensor, Tensor | None, Tensor | None, Tensor], Tensor]
"""Function of probabilities, queries, keys and values that returns the probabilities to use."""


def attend(  # noqa: PLR0917
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    read: Read,
) -> Tensor:
    r"""Compute `torch.nn.functional.scaled_dot_product_attention` with explicit probabilities.

    .. math:: A = \mathrm{softmax}\big(s\, Q K^T + M\big), \quad O = A V

    Args:
        query: Q, [...,T,d].
        key: K, [...,S,d].
        value: V, [...,S,e].
        attn_mask: M, or a mask that is False where no attention is paid.
        dropout_p: share of probabilities set to 0.
        is_causal: attention to earlier tokens only.
        scale: s; default: the inverse root of d.
        enable_gqa: several heads of queries share a head of keys and values.
        read: function that receives A, Q, K and V, and returns the A to use.

    Returns:
        O, [...,T,e]; 0 for queries that are masked everywhere, as in torch.
    """
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    probabilities = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
    if attn_mask is not None:
        probabilities = probabilities.masked_fill(torch.isneginf(scores).all(-1, keepdim=True), 0)
    probabilities = read(probabilities.to(query.dtype), query, key, value)
    if dropout_p:
        probabilities = F.dropout(probabilities, dropout_p)
    return probabilities @ value


_SOFTMAX = ("softmax",)
_PRODUCT = ("matmul", "bmm")
_SAME = ("to", "type_as", "type", "float", "half", "bfloat16", "double", "dropout", "view", "reshape", "contiguous",
         "clone", "unflatten", "flatten", "squeeze", "unsqueeze", "nan_to_num")  # fmt: skip
_SCORE = (*_SAME, "mul", "rmul", "imul", "div", "truediv", "add", "radd", "iadd", "sub", "masked_fill", "where")


class _Factors(NamedTuple):
    """Queries and transposed keys of scores."""

    query: Tensor
    key: Tensor


class AttentionMode(TorchFunctionMode):
    """Function mode that shows the probabilities of every attention to a callback.

    Fused attention is computed by `attend`. In models that compute attention step by step, a softmax over the last
    dimension of three or more is attention if a matrix product reads it; steps between the two that keep its values
    (dropout, casts, views) are followed. Modes belong to a thread, and are left with their with-block.

    Args:
        read: function that receives probabilities, queries, keys and values, and returns the probabilities to use.
        is_active: function that returns whether calls are read now.
    """

    def __init__(self, read: Read, is_active: Callable[[], bool]) -> None:
        super().__init__()
        self.read = read
        self.is_active = is_active
        self._scores = WeakTensorKeyDictionary()
        self._probabilities = WeakTensorKeyDictionary()
        self.unread = 0
        """Number of softmaxes over tokens that no matrix product has read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _OPEN:
            with self:  # for the operations inside
                return _open_function(func)(*args, **kwargs)
        if not self.is_active():
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return attend(*args, **kwargs, read=self.read)
        name = getattr(func, "__name__", "").strip("_")
        given = [a for a in args if isinstance(a, Tensor)]
        if name == "einsum" or name in _PRODUCT:
            return self._multiply(func, name, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and given:
            self._follow(name, args, kwargs, given, result)
        return result

    def _multiply(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute a matrix product, whose first factor may be probabilities."""
        at = 1 if name == "einsum" else 0
        factors = list(args[at:]) if at else list(args)
        if len(factors) >= 2 and isinstance(factors[0], Tensor) and factors[0] in self._probabilities:
            query, key = self._probabilities[factors[0]] or (None, None)
            self.unread -= 1
            args = (*args[:at], self.read(factors[0], query, key, factors[1]), *factors[1:])
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if not at and len(factors) >= 2 and isinstance(result, Tensor) and result.ndim >= 3:
            self._scores[result] = _Factors(factors[0].detach(), factors[1].detach().transpose(-2, -1))
        return result

    def _follow(self, name: str, args: Any, kwargs: dict[str, Any], given: list[Tensor], result: Tensor) -> None:
        """Note what a result is, if it is made of scores or probabilities."""
        if name in _SOFTMAX:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if result.ndim >= 3 and dim in (-1, result.ndim - 1) and result.shape[-1] > 1:
                self._probabilities[result] = self._scores.get(given[0], None)  # type: ignore[no-untyped-call]
                self.unread += 1
        elif name in ("baddbmm", "baddbmm_") and len(given) == 3:
            self._scores[result] = _Factors(given[1].detach(), given[2].detach().transpose(-2, -1))
        elif name in _SAME and given[0] in self._probabilities:
            self._probabilities[result] = self._probabilities[given[0]]
        elif name in _SCORE:
            known = next((t for t in given if t in self._scores), None)
            if known is not None and known.numel() == result.numel():
                self._scores[result] = self._scores[known]


# functions in Python with attention inside; backward passes run checkpointed blocks again
_OPEN = (F.multi_head_attention_forward, torch.autograd.grad, torch.autograd.backward, Tensor.backward)


@cache
def _open_function(plain: Any) -> Any:
    """Return a function of torch without its check for function modes, which would call them again without end."""
    checks = {name: lambda *tensors: False for name in plain.__globals__ if name.startswith("has_torch_function")}
    opened = types.FunctionType(
        plain.__code__, {**plain.__globals__, **checks}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    opened.__kwdefaults__ = plain.__kwdefaults__
    return opened


def split_heads(tensor: Tensor, images: int | None) -> Tensor:
    """Return [N*heads,T,d] as [N,heads,T,d]; other shapes are returned unchanged."""
    if tensor.ndim == 3 and images and tensor.shape[0] % images == 0:
        return tensor.reshape(images, -1, *tensor.shape[1:])
    return tensor


Add = Callable[[str, nn.Module, Tensor, AttentionInputs], Tensor]
"""Function of a layer's name, the layer, its probabilities and their inputs; it returns the probabilities to use."""


class AttentionReader:
    """Listener that follows the running modules and passes every attention on with the innermost of them.

    Args:
        layers: modules by name.
        count_images: function that returns the number of images of the present pass, if known.
        add: function that receives the attention.
    """

    def __init__(self, layers: dict[str, nn.Module], count_images: Callable[[], int | None], add: Add) -> None:
        self._names = {id(module): name for name, module in layers.items()}
        self._root = layers[""]
        self._count_images = count_images
        self._add = add
        self._open: list[nn.Module] = []
        self.mode = AttentionMode(self._read, lambda: bool(self._open))

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Note the start of a module's call."""
        if module is self._root:
            self._open.clear()
            self.mode.unread = 0
        if id(module) in self._names:
            self._open.append(module)
        return None

    def after(self, module: nn.Module, output: Any) -> Any:
        """Note the end of a module's call."""
        while module in self._open and self._open.pop() is not module:  # skip calls whose exception the model caught
            pass
        return None

    def _read(self, probabilities: Tensor, query: Tensor | None, key: Tensor | None, value: Tensor) -> Tensor:
        images, module = self._count_images(), self._open[-1]
        parts = [None if t is None else split_heads(t.detach(), images) for t in (query, key, value)]
        inputs = AttentionInputs(parts[0], parts[1], parts[2], tuple(self._open))  # type: ignore[arg-type]
        used = self._add(self._names[id(module)], module, split_heads(probabilities, images), inputs)
        return used.reshape(probabilities.shape)

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Read the attention of all calls in this thread inside the block."""
        with hooks.hook_calls(self), self.mode:
            try:
                yield
            finally:
                self._open.clear()
