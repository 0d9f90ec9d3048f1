"""Gradients as a generator: the loop pulls what autograd pushes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from camplug.plug import listen

if TYPE_CHECKING:
    from camplug.plug.tape import Layer, Tape


class _Abandoned(Exception):
    """The loop over gradients was left early."""


def pull(tape: Tape, score: Tensor, retain_graph: bool) -> Iterator[tuple[Layer, Tensor, Tensor]]:
    """Turn the push of autograd into a generator: a worker thread runs backward, hand over hand with the loop."""
    wanted, ready = threading.Semaphore(0), threading.Semaphore(0)
    box: list[Any] = []
    state: dict[str, Any] = {"abandoned": False, "done": False, "error": None}

    def visit(layer: Layer, activation: Tensor, gradient: Tensor) -> None:
        box.append((layer, activation, gradient))
        del activation, gradient
        ready.release()
        wanted.acquire()
        if state["abandoned"]:
            raise _Abandoned

    def work() -> None:
        wanted.acquire()
        try:
            if not state["abandoned"]:
                with listen.listening(tape), _same_device(score):
                    tape.stream(score, visit, retain_graph=retain_graph)
        except _Abandoned:
            pass
        except BaseException as error:  # handed to the loop, which raises it
            state["error"] = error
        state["done"] = True
        ready.release()

    worker = threading.Thread(target=work, name="camplug-gradients", daemon=True)
    worker.start()
    try:
        while True:
            wanted.release()
            ready.acquire()
            if state["error"] is not None:
                raise state["error"]
            if state["done"]:
                return
            yield box.pop()
    finally:
        if not state["done"]:
            state["abandoned"] = True
            wanted.release()
        worker.join()


def _same_device(score: Tensor) -> Any:
    return torch.cuda.device(score.device) if score.is_cuda else ExitStack()
