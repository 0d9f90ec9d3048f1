"""Checkpoints of plain tensors: prefixes of modules around the model, and state dicts that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.models.checkpoint import find_other_count, load_state, read_checkpoint, remove_prefix


def network(classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, classes))


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_state_dicts_lie_in_a_file_or_in_a_dict_of_it(tmp_path, key):
    state = network().state_dict()
    torch.save(state if key is None else {"epoch": 3, key: state}, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], state[k]) for k in state)


def test_files_that_hold_none(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none.pt")
    for content in ({}, {"a": 1}, [torch.zeros(1)], {1: torch.zeros(1)}):
        torch.save(content, tmp_path / "c.pt")
        with pytest.raises(ModelError, match="holds no state dict"):
            read_checkpoint(tmp_path / "c.pt")
    torch.save(network(), tmp_path / "c.pt")
    with pytest.raises(ModelError, match="it would run code when read"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "prefix, others",
    [
        ("", []),
        ("_orig_mod.", []),
        ("_orig_mod.", ["loss.weight"]),
        ("model.", ["loss.weight"]),
        ("module._orig_mod.", ["loss.weight", "module.loss.weight"]),
        ("_orig_mod.module.", ["loss.weight"]),
    ],
)
def test_prefixes_go_and_other_entries_with_them(prefix, others):
    own = network().state_dict()
    found = remove_prefix({f"{prefix}{k}": v for k, v in own.items()} | dict.fromkeys(others, torch.ones(2)), own)
    assert found.keys() == own.keys()
    assert all(found[k] is own[k] for k in own)


def test_unknown_entries_of_the_network_itself_are_kept_for_the_error():
    own = network().state_dict()
    for prefix in ("", "_orig_mod.", "model.", "model._orig_mod."):
        found = remove_prefix({f"{prefix}{k}": v for k, v in own.items()} | {f"{prefix}2.weight": torch.ones(1)}, own)
        assert found.keys() == {*own, "2.weight"}
    parts = {k.replace("0.", "0._orig_mod."): v for k, v in own.items()} | {"2.weight": torch.ones(1)}
    assert remove_prefix(parts, own).keys() == {*own, "2.weight"}  # a compiled part says nothing of other entries


def test_two_networks_in_one_file():
    own = network().state_dict()
    both = {f"{prefix}.{k}": v for prefix in ("student", "teacher") for k, v in own.items()}
    with pytest.raises(ModelError, match=r"'c.pt' holds several networks that fit \(student\., teacher\.\)"):
        remove_prefix(both, own, "c.pt")
    longer = both | {"student.0.weight": own["0.weight"]}
    del longer["teacher.1.bias"]
    assert remove_prefix(longer, own, "c.pt").keys() == own.keys()


def test_other_numbers_of_classes():
    assert find_other_count(network(3), network(5).state_dict()) == 5
    assert find_other_count(network(3), network(3).state_dict()) is None
    wider = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(8, 5))
    assert find_other_count(network(3), wider.state_dict()) is None
    with pytest.raises(ModelError, match=r"'c\.pt' has 5 classes and the model 3; set the number of classes to 5"):
        load_state(network(3), network(5).state_dict(), "c.pt")


def test_a_state_dict_that_does_not_fit_changes_nothing():
    model, state = network(), network().state_dict()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    del state["1.bias"]
    state |= {"2.weight": torch.zeros(1), "0.bias": torch.zeros(9)}
    says = r"lacks 1\.bias \(1 in all\); has unknown 2\.weight \(1 in all\); has another shape for 0\.bias \(1 in all\)"
    with pytest.raises(ModelError, match=f"'c.pt' does not fit this Sequential: it {says}"):
        load_state(model, state, "c.pt")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    other = network()
    load_state(model, other.state_dict(), "c.pt")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
