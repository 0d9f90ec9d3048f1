"""A push turned into a pull: a generator over what somebody else's loop calls back with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any


class _Abandoned(BaseException):
    """The generator was left early."""


def generate_calls(push: Callable[[Callable[..., None]], None]) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of every call that `push(visit)` makes to `visit`, one at a time.

    `push` runs in a thread of its own, hand over hand with the loop: it waits in `visit` until the loop comes back for
    the next item, so that one item is alive at a time. Closing the generator makes the pending `visit` raise, which
    ends `push`; an error in `push` is raised in the loop.
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
