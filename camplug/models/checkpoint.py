"""Read checkpoints of plain tensors, and load them into models."""

from __future__ import annotations

import os
import pickle
import warnings
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from camplug.errors import InputError, ModelError


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the state dict of a file, read with `weights_only=True`.

    Args:
        path: file with a state dict, or a dict with one under "state_dict", "model_state_dict" or "model".

    Raises:
        InputError: the file does not exist.
        ModelError: the file cannot be read, is damaged, or holds anything but plain tensors.
    """
    path = os.fspath(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path!r}.") from None
    except OSError as error:
        raise ModelError(f"the checkpoint {path!r} cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # torch.load raises nearly anything on damaged files
        why = "it would run code when read, or is damaged" if isinstance(error, pickle.UnpicklingError) else "damaged"
        raise ModelError(
            f"{path!r} is not a checkpoint of plain tensors ({why}); write one with "
            "torch.save(model.state_dict(), ...)."
        ) from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    plain = isinstance(state, dict) and all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items())
    if not plain or not state:
        raise ModelError(f"{path!r} holds no state dict (a dict from parameter names to tensors).")
    return dict(state)


_COMPILED = "_orig_mod."


def remove_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str = "") -> dict[str, Tensor]:
    """Return a state dict without the prefix of a module that contained the model.

    Prefixes come from Lightning modules ("model.", "net.", "backbone."), `nn.DataParallel` ("module.") and
    `torch.compile` ("_orig_mod."). Other entries of such a module are dropped.

    Args:
        state: saved state dict.
        own: state dict of the model.
        path: path of the file, for the error.

    Raises:
        ModelError: several prefixes fit.

    >>> x = torch.zeros(1)
    >>> list(remove_prefix({"model.fc.weight": x, "loss.weight": x}, {"fc.weight": x}))
    ['fc.weight']
    """
    saved = {name.replace(_COMPILED, ""): name for name in state}
    state = {name: state[as_saved] for name, as_saved in saved.items()}
    found: Counter[str] = Counter()
    for name in state:
        for i, letter in enumerate(name):
            if letter == "." and name[i + 1 :] in own:
                found[name[: i + 1]] += 1
    most = max(found.values(), default=0)
    if most <= len(own.keys() & state.keys()):
        return _drop_others(state, "", own, saved)
    prefixes = [prefix for prefix, count in found.items() if count == most]
    if len(prefixes) > 1:
        raise ModelError(
            f"{path!r} holds several networks that fit ({', '.join(sorted(prefixes))}); save the one you mean with "
            "torch.save(model.state_dict(), ...)."
        )
    return _drop_others(state, prefixes[0], own, saved)


def _drop_others(
    state: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], saved: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return the entries with a prefix, without it; if the model was compiled, without entries beside it."""
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    compiled = {name for name in found if saved[prefix + name].endswith(f"{_COMPILED}{name}")}
    return {name: value for name, value in found.items() if name in compiled or name in own} if compiled else found


def find_other_count(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of a state dict's head if it differs from the model's, else None."""
    own = model.state_dict()
    head = next((k for k in reversed(list(state)) if k.endswith("weight") and state[k].ndim >= 2), None)
    if head in own and own[head].shape[1:] == state[head].shape[1:] and own[head].shape != state[head].shape:
        return state[head].shape[0]
    return None


def load_state(model: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Load a state dict into a model.

    Args:
        model: model to change.
        state: state dict with the model's names; see `remove_prefix`.
        path: path of the file, for the error.

    Raises:
        ModelError: the state dict does not fit the model.
    """
    own, count = model.state_dict(), find_other_count(model, state)
    if count is not None:
        head = next(k for k in reversed(list(state)) if k.endswith("weight") and state[k].ndim >= 2)
        raise ModelError(
            f"{path!r} has {count} classes and the model {own[head].shape[0]}; set the number of classes to {count}."
        )
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    other = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or other:
        kinds = (("lacks", missing), ("has unknown", extra), ("has another shape for", other))
        says = "; ".join(f"{verb} {', '.join(k[:2])} ({len(k)} in all)" for verb, k in kinds if k)
        raise ModelError(f"{path!r} does not fit this {type(model).__name__}: it {says}.")
    model.load_state_dict(state)
