"""Checks of an explainer of one's own, for its tests: values, classes, batches, state, threads, half precision."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from camplug.explain.base import Explainer

SIDE = 24


class TinyNetwork(nn.Module):
    """Convolution network of 4 classes with batch normalisation, in-place ReLU, pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [N,4] of images [N,3,H,W]."""
        features: Tensor = self.body(x)
        return self.head(features.mean((2, 3)))  # type: ignore[no-any-return]


def make_network() -> TinyNetwork:
    """Return a `TinyNetwork` with fixed random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return TinyNetwork().eval()


def make_images(count: int = 3) -> Tensor:
    """Return fixed random images [N,3,24,24]."""
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def check_explainer(make: Callable[[nn.Module], Explainer], *, tolerance: float = 1e-4) -> None:
    """Check that an explainer behaves as camplug's own do, on a small network.

    Checked are: shape, dtype, range and finiteness of the maps; one class, one per image, several per image and none;
    a batch against single images; calls inside `no_grad` and `inference_mode`; that the model's weights, modes, flags
    and hooks are as before; two threads at once; a bfloat16 model; and `explain` of a photograph.

    Args:
        make: class of the explainer, or a function from a model to an explainer.
        tolerance: allowed difference between maps that should be equal, whose maximum is 1.

    Raises:
        AssertionError: a check failed; the message says which.

    >>> import camplug
    >>> check_explainer(camplug.GradCAM)
    """
    model, x = make_network(), make_images()
    before = _describe_state(model)
    maps = _get_tensor(make(model).maps(x, 1))
    _check(tuple(maps.shape) == (3, SIDE, SIDE), f"maps of 3 images are [3,{SIDE},{SIDE}]; got {list(maps.shape)}")
    _check(maps.dtype == torch.float32, f"maps of a float32 model are float32; got {maps.dtype}")
    _check(bool(torch.isfinite(maps).all()), "maps are finite")
    low, high = float(maps.min()), float(maps.max())
    _check(low >= 0 and high <= 1 + 1e-6, f"maps lie in [0, 1] by default; got {low:.3g} to {high:.3g}")
    _check(not maps.requires_grad, "maps are detached")
    _check(before == _describe_state(model), "the model is as before: weights, modes, flags, gradients, hooks")
    _check_classes(make, model, x, maps, tolerance)
    for name, mode in (("no_grad", torch.no_grad), ("inference_mode", torch.inference_mode)):
        with mode():
            _compare(make(model).maps(x, 1), maps, tolerance, f"inside torch.{name}()")
    _check_threads(make, x, maps, tolerance)
    half = _get_tensor(make(make_network().bfloat16()).maps(x.bfloat16(), 1))
    _check(bool(torch.isfinite(half).all()), "maps of a bfloat16 model are finite")
    _check(half.dtype == torch.float32, f"maps of a bfloat16 model are float32; got {half.dtype}")
    _check_photo(make, model)


def _check_classes(
    make: Callable[[nn.Module], Explainer], model: nn.Module, x: Tensor, maps: Tensor, tolerance: float
) -> None:
    single = torch.cat([_get_tensor(make(model).maps(image[None], 1)) for image in x])
    _compare(single, maps, tolerance, "images one by one")
    each = make(model).maps(x, [[0, 1], [1], []])
    _check(isinstance(each, list) and [len(m) for m in each] == [2, 1, 0], "lists of classes give one map per class")
    _compare(each[0][1:], maps[:1], tolerance, "the second of two classes")
    _compare(each[1], maps[1:2], tolerance, "a class in a list")
    predicted = [int(c) for c in model(x).argmax(1)]
    _compare(make(model).maps(x), _get_tensor(make(model).maps(x, predicted)), tolerance, "without a class")
    shape = tuple(_get_tensor(make(model).maps(x, 1, size=(10, 14))).shape)
    _check(shape == (3, 10, 14), f"size=(10, 14) is obeyed; got {list(shape)}")


def _check_threads(make: Callable[[nn.Module], Explainer], x: Tensor, maps: Tensor, tolerance: float) -> None:
    explainer, found, errors = make(make_network()), dict[int, Tensor](), list[BaseException]()

    def run(number: int) -> None:
        try:
            found[number] = _get_tensor(explainer.maps(x, 1))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _check(not errors, f"two threads may use one explainer; got {errors[:1]}")
    for one in found.values():
        _compare(one, maps, tolerance, "in two threads at once")


def _check_photo(make: Callable[[nn.Module], Explainer], model: nn.Module) -> None:
    from camplug.images.preprocess import Preprocess

    explainer: Any = make(model)
    explainer.preprocess = Preprocess((SIDE, SIDE), (0.5,) * 3, (0.5,) * 3)
    pixels = (make_images(1)[0].permute(1, 2, 0) * 40 + 128).clamp(0, 255).byte().repeat_interleave(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty map
        result = explainer.explain(pixels.numpy(), 2)
    _check(tuple(result.maps.shape) == (1, SIDE, 2 * SIDE), "explain() gives a map at the photograph's size")


def _describe_state(model: nn.Module) -> list[Any]:
    """Return what must not change in a model, as comparable values."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    values = [(name, t.detach().cpu().tolist(), t.requires_grad, t.grad is None) for name, t in tensors]
    hooks = [(name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()]
    return [*values, *hooks]


def _get_tensor(maps: Tensor | list[Tensor]) -> Tensor:
    _check(isinstance(maps, Tensor), "one class per image gives a tensor [N,H,W], no list")
    assert isinstance(maps, Tensor)
    return maps


def _compare(got: Any, want: Tensor, tolerance: float, what: str) -> None:
    same = tuple(got.shape) == tuple(want.shape)
    difference = float((got - want).abs().max()) if same and want.numel() else 0.0
    _check(same and difference <= tolerance, f"the maps are the same {what}; they differ by {difference:.3g}")


def _check(good: bool, message: str) -> None:
    if not good:
        raise AssertionError(f"expected: {message}.")


__all__ = ["TinyNetwork", "check_explainer", "make_images", "make_network"]
