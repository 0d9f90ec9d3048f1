"""Turn a function that calls back into a generator, by running it in a background thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any


class _Abandoned(BaseException):
    """Raised in the background thread when the generator is closed early."""


def generate_calls(push: Callable[[Callable[..., None]], None]) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of every call that `push(visit)` makes to `visit`, one at a time.

    `push` runs in a background thread and blocks in `visit` until the next item is requested, so only one item exists
    at a time. Closing the generator ends `push` by an exception in `visit`; an error in `push` is raised in the caller.
    """
    wanted, ready = threading.Semaphore(0), threading.Semaphore(0)
    box: list[tuple[Any, ...]] = []
    state: dict[str, Any] = {"abandoned": False, "done": False, "error": None}

    def visit(*item: Any) -> None:
        box.append(item)
        del item
        ready.release()
        wanted.acquire()
        if state["abandoned"]:
            raise _Abandoned

    def work() -> None:
        wanted.acquire()
        try:
            if not state["abandoned"]:
                push(visit)
        except _Abandoned:
            pass
        except BaseException as error:  # raised in the caller
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
