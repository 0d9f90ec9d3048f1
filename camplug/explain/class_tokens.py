"""Class-token attention of MCTformer (Xu et al., 2022, arXiv 2203.02891)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from camplug.errors import InputError, LayerError
from camplug.explain.attention import AttentionExplainer, average_rows, find_queries
from camplug.explain.registry import register
from camplug.explain.tensor_ops import widen
from camplug.plug import AttentionCall, Layer, Tape, Targets, get_logits
from camplug.plug.grid import Layout


def refine_by_affinity(attention: Tensor, affinity: Tensor) -> Tensor:
    r"""Compute the refined map of a class token.

    .. math:: L_i = \sum_j P_{ij}\, a_j

    Args:
        attention: a, attention of the class token to the patches, [N,P].
        affinity: attention between patches, [N,P,P].

    Returns:
        Map [N,P], not negative, not normalised.
    """
    return (affinity @ attention[..., None])[..., 0]


def multiply_by_patch_cam(attention: Tensor, patch_cam: Tensor, *, root: bool = False) -> Tensor:
    r"""Compute the fused map of a class token's attention and the class map of the patches (MCTformer-V2).

    .. math:: f_i = a_i \, \mathrm{relu}(p_i)

    Args:
        attention: a, attention of the class token to the patches, [N,P].
        patch_cam: p, output of the classifier of the patches for the class, [N,P].
        root: return :math:`\sqrt{f}` as in MCTformer+.

    Returns:
        Map [N,P], not negative, not normalised.
    """
    fused = attention * patch_cam.clamp_min(0)
    return fused.sqrt() if root else fused


@register("classtoken")
class ClassTokenAttention(AttentionExplainer):
    """Attention of a class's own token to the patches, refined by the attention between patches (MCTformer).

    Needs a transformer with one token per class, as in MCTformer: the score of a class must depend on one token besides
    the patches, and on another one for another class. The token's attention is averaged over the heads and over the
    last layers (`last`, 3 in the paper), the affinity over all heads and layers. If the model classifies its patches,
    too (MCTformer-V2 and MCTformer+), `patch_cam` multiplies the attention by that class map before the refinement.

    Args:
        model: transformer, which is never changed.
        last: number of attention layers of the class token, counted from the last one.
        patch_cam: name of the layer that puts out the class map of the patches [N,C,h,w]; "head" in MCTformer-V2.
        root: square root of the product, as in MCTformer+.
        options: further arguments of `AttentionExplainer`.
    """

    default_last: ClassVar[int | None] = 3

    def __init__(
        self,
        model: nn.Module,
        last: int | None = None,
        *,
        patch_cam: str | None = None,
        root: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, last, **options)
        if self.evidence == "negative":
            raise InputError(
                "the attention of a class token has no sign, so it shows no negative evidence; use LeGrad."
            )
        if root and patch_cam is None:
            raise InputError("root=True is the root of the product with the class map; give its layer with patch_cam=.")
        self.patch_cam, self.root = patch_cam, root
        self.layers = () if patch_cam is None else (patch_cam,)

    @override
    def read_layer(self, call: AttentionCall, gradient: Tensor, read: Tensor, tokens: Layout) -> Tensor:
        return widen(call.probabilities).mean(1)

    @property
    @override
    def last_read(self) -> int | None:
        return None  # the affinity is that of all layers

    @override
    def combine(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        return refine_by_affinity(self._average_attention(parts, read, tokens), _average_affinity(parts, tokens))

    @override
    def combine_round(
        self, parts: list[Tensor], read: Tensor, tokens: Layout, *, tape: Tape, targets: Targets, r: int
    ) -> Tensor:
        if self.patch_cam is None:
            return self.combine(parts, read, tokens)
        attention = self._average_attention(parts, read, tokens)
        found = self._read_patch_cam(tape[self.patch_cam], tokens, targets, r)
        fused = multiply_by_patch_cam(attention, found.to(attention.dtype), root=self.root)
        return refine_by_affinity(fused, _average_affinity(parts, tokens))

    def _read_patch_cam(self, output: Tensor, tokens: Layout, targets: Targets, r: int) -> Tensor:
        """Return the class map [N,P] of the patches for the classes of round r; 0 for images without one.

        Raises:
            LayerError: the layer puts out no class map of the patches, or the target is no class.
        """
        if targets.score is not None:
            raise LayerError("ClassTokenAttention(patch_cam=) reads the map of a class; give a class, not a callable.")
        images, classes = targets.get_round(r)
        if output.shape[2:] != (tokens.h, tokens.w) or len(output) != len(targets.classes):
            raise LayerError(
                f"patch_cam={self.patch_cam!r} puts out {list(output.shape)}, which is no class map [N,C,{tokens.h},"
                f"{tokens.w}] of the patches; name the layer that classifies them."
            )
        if max(classes) >= output.shape[1]:
            raise LayerError(
                f"patch_cam={self.patch_cam!r} puts out maps of {output.shape[1]} classes, and class {max(classes)} is "
                "explained; name the layer that classifies the patches."
            )
        found = widen(output).new_zeros(len(output), tokens.h * tokens.w)
        found[images] = widen(output)[images, classes].flatten(1)
        return found

    def _average_attention(self, parts: list[Tensor], read: Tensor, tokens: Layout) -> Tensor:
        """Return the attention [N,P] of the class's token to the patches.

        Raises:
            LayerError: the score reads several tokens.
        """
        own = find_own_tokens(read, tokens)
        if bool((own.sum(1) > 1).any()):
            raise LayerError(
                "ClassTokenAttention explains one class by its own token, and this score reads several tokens; give a "
                "class, or take GradientRollout."
            )
        attention = average_rows(torch.stack(parts[-(self.last or len(parts)) :]).mean(0), own)
        return tokens.pick(attention, 1)

    @override
    def check_tokens(self, tape: Tape, output: Any, n: int, tokens: Layout) -> None:
        """Check that two classes depend on one token each, and not the same.

        Raises:
            LayerError: they do not.
        """
        logits = get_logits(output, n)
        if tokens.others >= logits.shape[1] > 1:
            found = [self._find_tokens_of_class(tape, logits, c, tokens) for c in (0, 1)]
            if all(bool((own.sum(1) == 1).all()) for own in found) and not bool((found[0] & found[1]).any()):
                return
        raise LayerError(
            f"ClassTokenAttention needs a transformer with a token of its own for every class (MCTformer), and this "
            f"{self._get_kind()} has {tokens.others} token{'s'[: tokens.others != 1]} besides the patches for "
            f"{logits.shape[1]} classes; take GradientRollout or LeGrad."
        )

    @staticmethod
    def _find_tokens_of_class(tape: Tape, logits: Tensor, c: int, tokens: Layout) -> Tensor:
        """Return the tokens besides the patches that the score of a class depends on, bool [N,T]."""
        found: list[Tensor] = []

        def add(layer: Layer, probabilities: Tensor, gradient: Tensor) -> None:
            if not found:
                found.append(find_own_tokens(find_queries(gradient), tokens))

        tape.backward(logits[:, c], add, retain_graph=True)
        return found[0]


def _average_affinity(parts: list[Tensor], tokens: Layout) -> Tensor:
    """Return the attention [N,P,P] between patches."""
    return tokens.pick(tokens.pick(torch.stack(parts).mean(0), 1), 2)


def find_own_tokens(read: Tensor, tokens: Layout) -> Tensor:
    """Return the queries [N,T] that are read and no patches."""
    own = read.clone()
    tokens.pick(own, 1).fill_(False)
    return own
