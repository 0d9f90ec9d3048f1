"""Processes of torchrun: ranks, barriers and exchanged texts."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any

from camplug.errors import CamplugError, InputError

TIMEOUT = timedelta(days=30)  # barrier timeout between processes
CALLS: Counter[str] = Counter()  # number of exchanges by name, for unique keys


def get_shard() -> tuple[int, int]:
    """Return this process's rank and the number of processes, as set by torchrun; (0, 1) without it.

    Raises:
        InputError: RANK and WORLD_SIZE do not fit together.
    """
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        rank, world = -1, 0
    if not 0 <= rank < world:
        raise InputError(
            f"RANK={os.environ.get('RANK')!r} and WORLD_SIZE={os.environ.get('WORLD_SIZE')!r} do not fit together; "
            "torchrun sets them, and RANK goes from 0 to WORLD_SIZE - 1."
        )
    return rank, world


def exchange(name: str, text: str = "") -> list[str]:
    """Wait for all processes of torchrun and gather one text from each, in the order of ranks.

    Works before, during and after distributed training; all processes must make the same calls. Returns at once
    without torchrun.

    Args:
        name: barrier key.
        text: text of this process.

    Raises:
        InputError: RANK and WORLD_SIZE are set, but not by torchrun.
        CamplugError: other processes have ended.
    """
    rank, world = get_shard()
    if world == 1:
        return [text]
    from torch import distributed

    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        if distributed.is_available() and distributed.is_initialized():
            texts: list[Any] = [None] * world
            distributed.all_gather_object(texts, text)
            return texts
        raise InputError(
            f"RANK={rank} and WORLD_SIZE={world} are set, but not by torchrun, by which processes find each other; "
            f"start them with: torchrun --nproc-per-node {world} -m camplug ..."
        )
    CALLS[name] += 1
    keys = [f"camplug/{name}/{CALLS[name]}/{other}" for other in range(world)]
    gone = [f"{key}/gone" for key in keys]
    try:
        store = _connect_store()
        store.set(keys[rank], text)
        store.wait(keys, TIMEOUT)
        texts = [store.get(key).decode() for key in keys]
        store.set(gone[rank], "")
        if rank == 0:  # rank 0 may host the store: keep it until all have read
            store.wait(gone, TIMEOUT)
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CamplugError(
            f"process {rank} of {world} has lost the others ({first}); start the command again, and it goes on."
        ) from error
    return texts


def wait_for_processes(name: str, *, needed: bool = True) -> None:
    """Wait for all processes of torchrun; see `exchange`.

    Args:
        name: barrier key.
        needed: raise errors. False suits a finished process that waits only because torchrun stops all processes when
            one exits with an error code.

    Raises:
        CamplugError: see `exchange`; only if `needed`.
    """
    with suppress(*(() if needed else (CamplugError,))):
        exchange(name)


@cache
def _connect_store() -> Any:
    """Connect to torchrun's key-value store; cached, since this process may host it."""
    from torch.distributed.rendezvous import rendezvous

    store, *_ = next(rendezvous("env://", timeout=TIMEOUT))
    return store
