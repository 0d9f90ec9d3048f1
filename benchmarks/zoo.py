"""Maps of many networks against a slow reference, as a table: `python benchmarks/zoo.py` writes docs/zoo.md.

Networks are small, in float64, with random weights. The reference is plain autograd: hooks on the named layers, one
full backward pass per image, sums in loops. It knows the networks' prefix tokens, and nothing of camplug.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from markdown_tables import renew, table
from torch import Tensor, nn
from zoo_hosts import Host, find_host, list_hosts

import camplug
from camplug.errors import CamplugError

ROOT = Path(__file__).parents[1]
if str(ROOT / "tests" / "support") not in sys.path:
    sys.path.append(str(ROOT / "tests" / "support"))
import reference  # noqa: E402

__all__ = ["find_host", "measure"]
METHODS = ("gradcam", "layercam", "fully", "legrad")
TITLES = {"gradcam": "GradCAM", "layercam": "LayerCAM", "fully": "FullyCAM", "legrad": "LeGrad"}
ALLOWED = 1e-5
CLASS = 1


@dataclass(frozen=True)
class Cell:
    """Result of one method on one network.

    Attributes:
        error: largest difference from the reference, whose maximum is 1; None without a reference.
        sentence: the refusal; empty if there is a map.
        layers: names of the layers.
    """

    error: float | None = None
    sentence: str = ""
    layers: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The cell of the table."""
        if self.sentence:
            return "refused"
        if self.error is None:
            return "map"
        return f"equal ({self.error:.0e})" if self.error < ALLOWED else f"WRONG ({self.error:.1e})"


def lay_on_grid(tensor: Tensor, prefix: int) -> Tensor:
    """Return a layer's output of square images as [N,C,h,w]: feature maps, channels-last maps, or tokens [N,L,C]."""
    if tensor.ndim == 4:
        return tensor if tensor.shape[2] == tensor.shape[3] else tensor.permute(0, 3, 1, 2)
    count = tensor.shape[1] - prefix
    side = math.isqrt(count)
    if side * side != count:
        side = math.isqrt(tensor.shape[1])
        prefix = tensor.shape[1] - side * side
    return tensor[:, prefix:].transpose(1, 2).unflatten(2, (side, side))


def measure(host: Host, method: str, model: nn.Module | None = None) -> Cell:
    """Compare the first of two images' maps with the reference, which computes both in one batch, too."""
    model, x = host.make() if model is None else model, host.make_images()
    explainer = camplug.create(method, model)
    try:
        found = explainer.maps(x, CLASS)[0]
    except CamplugError as error:
        return Cell(sentence=str(error))
    if method == "legrad":
        expected = reference_legrad(host, model, x[:1])
        return Cell(None if expected is None else float((found - expected).abs().max()))
    with explainer.tape() as tape:
        model(x)
        layers = tuple(dict.fromkeys(layer.name for layer, _ in tape.captures))
    expected = reference.reference_map(
        method, model, layers, x, lambda out: _get_logits(out)[:, CLASS], grid=lambda t: lay_on_grid(t, host.prefix)
    )
    return Cell(float((found - expected).abs().max()), layers=layers)


def _get_logits(output: object) -> Tensor:
    found = getattr(output, "logits", output)
    assert isinstance(found, Tensor)
    return found


Head = Callable[[nn.Module, Tensor], Tensor]
TIMM_VIT: Head = lambda m, t: m.forward_head(m.norm(t))  # noqa: E731
HF_HEADS: dict[str, Head] = {
    "ViTForImageClassification": lambda m, t: m.classifier(m.vit.layernorm(t)[:, 0]),
    "DeiTForImageClassification": lambda m, t: m.classifier(m.deit.layernorm(t)[:, 0]),
    "ViTMSNForImageClassification": lambda m, t: m.classifier(m.vit.layernorm(t)[:, 0]),
    "IJepaForImageClassification": lambda m, t: m.classifier(m.ijepa.layernorm(t).mean(1)),
}
"""Layers that follow the last block."""
TIMM_VITS = ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "test_vit")


def reference_legrad(host: Host, model: nn.Module, x: Tensor) -> Tensor | None:
    """Compute LeGrad of one image with attention step by step; None for networks whose head is not written here."""
    model = copy.deepcopy(model)
    attention: list[Tensor] = []
    tokens: list[Tensor] = []
    if host.source == "timm" and host.name in TIMM_VITS:
        for block in model.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda m, i, out: attention.append(out))
            block.register_forward_hook(lambda m, i, out: tokens.append(out))
        model(x)
        head = TIMM_VIT
    elif host.name in HF_HEADS and not host.pair:
        model.set_attn_implementation("eager")
        out = model(x, output_attentions=True, output_hidden_states=True)
        attention, tokens, head = list(out.attentions), list(out.hidden_states[1:]), HF_HEADS[host.name]
    else:
        return None
    layers = []
    for probabilities, own in zip(attention, tokens, strict=True):
        score = head(model, own.mean(1, keepdim=True).expand_as(own))[0, CLASS]
        (gradient,) = torch.autograd.grad(score, probabilities, retain_graph=True)
        layers.append(gradient[0].clamp_min(0).mean((0, 1))[host.prefix :])
    relevance = torch.stack(layers).mean(0)
    side = math.isqrt(len(relevance))
    map_ = F.interpolate(relevance.view(1, 1, side, side), x.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    return (map_ / map_.max()).detach()


def measure_all(title: str) -> dict[str, Cell]:
    """Measure all methods on a network."""
    warnings.simplefilter("ignore")
    host = find_host(title)
    model = host.make()
    cells = {method: measure(host, method, model) for method in METHODS}
    print(title, {m: c.text for m, c in cells.items()}, flush=True)
    return cells


def make_table(hosts: list[Host], jobs: int) -> list[str]:
    """Return the lines of the table and of the refusals."""
    rows, sentences = [], []
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        found = pool.map(measure_all, [f"{host.source} {host.name}" for host in hosts], chunksize=1)
    for host, cells in zip(hosts, found, strict=True):
        last, all_layers = cells["gradcam"].layers, cells["fully"].layers
        row = [f"{host.source} {host.name}", *(cells[m].text for m in METHODS)]
        rows.append([*row, f"`{last[0]}`" if last else "", str(len(all_layers)) if all_layers else ""])
        for method, cell in cells.items():
            if cell.sentence:
                sentences.append((f"{host.source} {host.name}", TITLES[method], cell.sentence))
    lines = table(["network", *TITLES.values(), "last layer", "layers of FullyCAM"], rows)
    lines += [f"{len(rows)} networks.", "", "What is refused, and how:", ""]
    grouped: dict[str, list[str]] = {}
    for name, method, sentence in sentences:
        grouped.setdefault(sentence, []).append(f"{name} ({method})")
    lines += [f'- {", ".join(names)}: "{sentence}"' for sentence, names in grouped.items()]
    return [*lines, ""]


def main() -> None:
    """Write the table into docs/zoo.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name contains this; the table is printed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = make_table([host for host in list_hosts() if args.only in f"{host.source} {host.name}"], args.jobs)
    if args.only:
        print("\n".join(lines))
    else:
        renew(ROOT / "docs" / "zoo.md", "zoo", lines)


if __name__ == "__main__":
    main()
