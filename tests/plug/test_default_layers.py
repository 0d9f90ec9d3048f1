"""The default layers of every timm family, against a table that was read by eye once.

`python tests/plug/test_default_layers.py` writes the table anew, from the smallest member of every family.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
import timm
import torch

from camplug.errors import LayerError
from camplug.plug import named_layers, select, trace_model

pytestmark = pytest.mark.slow  # a long table of cases

TABLE = Path(__file__).with_name("default_layers.json")
SIDES = (128, None)  # the model's own where it takes no other
LARGE = ("deepseek_vit", "gemma4_vit", "mobilenetv5", "nasnet", "pnasnet", "beit", "volo")


def default_layers(name):
    """The size of the image, and per selector the layers ("convs": how many, and the last) or the refusal."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name).eval()
    layers, row = named_layers(model), {"model": name}
    for side in SIDES:
        row["side"] = side or model.pretrained_cfg["input_size"][-1]
        try:
            seen = trace_model(model, layers, (torch.randn(1, 3, row["side"], row["side"]),))
            break
        except Exception:
            if side is None:
                raise
    for selector in ("last", "stages", "convs"):
        try:
            found = list(select(model, layers, selector, seen))
        except LayerError:
            found = []
        row[selector] = [len(found), found[-1]] if selector == "convs" and found else found
    return row


def table():
    return json.loads(TABLE.read_text())


def check(family):
    row = table()[family]
    assert default_layers(row["model"]) == row


SAMPLED = ("byobnet", "levit", "mobilevit", "vision_transformer", "xcit", "naflexvit", "resnet", "coat")


@pytest.mark.parametrize("family", SAMPLED)
def test_default_layers_of_some_families(family):
    check(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(table() if TABLE.exists() else ()) - set(SAMPLED) - set(LARGE)))
def test_default_layers_of_all_families(family):
    check(family)


def smallest(names):
    """The member of a family with the fewest parameters among those whose names say that they are small."""
    words = (
        "test_ atto femto pico nano xxt xxs xtiny xs x_tiny tiny _ti mini _t_ _t0 _s0 small _s 050 18 _b0 _0".split()
    )

    def rank(name):
        sizes = [int(v) for v in re.findall(r"_(\d{3})(?:$|_)", name)]
        return next((i for i, word in enumerate(words) if word in name), 99) + (max(sizes or [224]) - 224) / 50

    def parameters(name):
        try:
            with torch.device("meta"):
                return sum(p.numel() for p in timm.create_model(name).parameters())
        except Exception:
            return float("inf")

    return min(sorted(names, key=rank)[:4], key=parameters)


def write_the_table():
    families = {}
    for name in timm.list_models():
        families.setdefault(timm.models._registry._model_to_module[name], []).append(name)
    rows = {}
    for family, names in sorted(families.items()):
        if family == "deepseek_vit":  # 412 million parameters
            continue
        rows[family] = default_layers(smallest(names))
        print(family, rows[family], flush=True)
    lines = ",\n".join(f'"{family}": {json.dumps(row)}' for family, row in rows.items())
    TABLE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_the_table()
