"""The contenders of explainers.py: bare PyTorch as the floor, camplug, and its peers used as their manuals say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from measure import Opener
from torch import Tensor, nn

import camplug

JOBS = {
    "forward": "Forward pass only",
    "layer": "One map from one layer",
    "convs": "One map from all convolutions",
    "classes": "Many classes of one image, one layer",
}


def taped_layers(model: nn.Module, x: Tensor) -> list[str]:
    """The names of the layers that Fully-CAM reads."""
    with camplug.FullyCAM(model).tape() as tape:
        model(x)
        return tape.names


@dataclass
class Setting:
    """One batch on one model, and what is asked about it."""

    model: nn.Module
    x: Tensor
    classes: list[int]  # one per image
    many: list[int]  # several classes, for the first image
    layer: str

    @property
    def size(self) -> tuple[int, int]:
        return (self.x.shape[2], self.x.shape[3])

    @cached_property
    def convs(self) -> dict[str, nn.Module]:
        """All convolutions; of a transformer the layers that Fully-CAM reads there."""
        return {name: self.model.get_submodule(name) for name in taped_layers(self.model, self.x[:1])}

    @property
    def target(self) -> nn.Module:
        return self.model.get_submodule(self.layer)


@dataclass(frozen=True)
class Contender:
    """One row of a table; `origin` is "floor", "camplug" or the module name of a peer."""

    key: str
    job: str
    label: str
    origin: str
    build: Callable[[Setting], Any]

    @property
    def installed(self) -> bool:
        return self.origin in ("floor", "camplug") or find_spec(self.origin) is not None

    def opener(self, setting: Setting) -> Opener:
        return lambda: self.build(setting)


CONTENDERS: list[Contender] = []
FLOORS = {"forward": "forward", "layer": "floor_layer", "convs": "floor_convs", "classes": "floor_classes"}


def contender(job: str, label: str, library: str) -> Callable[[Callable[[Setting], Iterator[Any]]], Any]:
    """Enter a generator that builds, yields a call, and tidies up."""

    def enter(function: Callable[[Setting], Iterator[Any]]) -> Any:
        build = contextmanager(function)
        CONTENDERS.append(Contender(function.__name__, job, label, library, build))
        return build

    return enter


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [N,h,w] at the size of the image."""
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


# ---- bare PyTorch: parameters frozen, nothing computed that is not needed, nothing made of the gradients


def score(logits: Tensor, classes: list[int]) -> Tensor:
    return logits[range(len(classes)), classes].sum()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters that ask for no gradient; `measure.clean` sets the flags back as well, should this fail."""
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in zip(model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)


@contextmanager
def from_layer(s: Setting) -> Iterator[list[Tensor]]:
    """Freeze the model and start the graph at the one layer's output, which is handed out after a forward pass."""
    outputs: list[Tensor] = []

    def start(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        outputs[:] = [leaf.view_as(leaf)]  # FlopCounterMode cannot take a leaf
        return outputs[0]

    handle = s.target.register_forward_hook(start)
    with frozen(s.model):
        yield outputs
    handle.remove()


def gradient_at_layer(s: Setting, memory_format: torch.memory_format) -> Iterator[Any]:
    with from_layer(s) as outputs:

        def call() -> None:
            logits = s.model(s.x.contiguous(memory_format=memory_format))
            torch.autograd.grad(score(logits, s.classes), [outputs.pop()])

        yield call


def gradients_at_convs(s: Setting, memory_format: torch.memory_format) -> Iterator[Any]:
    outputs: list[Tensor] = []
    with frozen(s.model), ExitStack() as hooks:
        for module in s.convs.values():
            handle = module.register_forward_hook(lambda _m, _args, output: outputs.append(output))
            hooks.callback(handle.remove)

        def call() -> None:
            x = s.x.contiguous(memory_format=memory_format).detach().requires_grad_()  # so that a graph is made at all
            logits = s.model(x)
            torch.autograd.grad(score(logits, s.classes), outputs)
            outputs.clear()

        yield call


@contender("forward", "forward pass, no_grad", "floor")
def forward(s: Setting) -> Iterator[Any]:
    yield lambda: torch.no_grad()(s.model)(s.x)


@contender("forward", "forward pass, no_grad, channels_last", "floor")
def forward_channels_last(s: Setting) -> Iterator[Any]:
    yield lambda: torch.no_grad()(s.model)(s.x.contiguous(memory_format=torch.channels_last))


@contender("layer", "floor: gradient at the layer", "floor")
def floor_layer(s: Setting) -> Iterator[Any]:
    yield from gradient_at_layer(s, torch.contiguous_format)


@contender("layer", "floor: gradient at the layer, channels_last", "floor")
def floor_layer_channels_last(s: Setting) -> Iterator[Any]:
    yield from gradient_at_layer(s, torch.channels_last)


@contender("convs", "floor: gradients at the convolutions", "floor")
def floor_convs(s: Setting) -> Iterator[Any]:
    yield from gradients_at_convs(s, torch.contiguous_format)


@contender("convs", "floor: gradients at the convolutions, channels_last", "floor")
def floor_convs_channels_last(s: Setting) -> Iterator[Any]:
    yield from gradients_at_convs(s, torch.channels_last)


@contender("classes", "floor: one forward pass, a gradient per class", "floor")
def floor_classes(s: Setting) -> Iterator[Any]:
    with from_layer(s) as outputs:

        def call() -> None:
            logits = s.model(s.x[:1])
            for c in s.many:
                torch.autograd.grad(logits[0, c], outputs, retain_graph=True)
            outputs.clear()

        yield call


# ---- camplug


@contender("layer", "camplug GradCAM", "camplug")
def camplug_gradcam(s: Setting) -> Iterator[Any]:
    cam = camplug.GradCAM(s.model, s.layer)
    yield lambda: cam.maps(s.x, s.classes)


@contender("convs", "camplug FullyCAM", "camplug")
def camplug_fully(s: Setting) -> Iterator[Any]:
    cam = camplug.FullyCAM(s.model)
    yield lambda: cam.maps(s.x, s.classes)


@contender("convs", "camplug LayerCAM", "camplug")
def camplug_layercam(s: Setting) -> Iterator[Any]:
    cam = camplug.LayerCAM(s.model, "convs")
    yield lambda: cam.maps(s.x, s.classes)


@contender("classes", "camplug GradCAM, one call", "camplug")
def camplug_classes(s: Setting) -> Iterator[Any]:
    cam = camplug.GradCAM(s.model, s.layer)
    yield lambda: cam.maps(s.x[:1], [s.many])


# ---- grad-cam: the object is built once; maps come at the size of the image, as numpy arrays


def gradcam_targets(classes: list[int]) -> list[Any]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return [ClassifierOutputTarget(c) for c in classes]


@contender("layer", "grad-cam GradCAM", "pytorch_grad_cam")
def gradcam_gradcam(s: Setting) -> Iterator[Any]:
    from pytorch_grad_cam import GradCAM

    targets = gradcam_targets(s.classes)
    with GradCAM(model=s.model, target_layers=[s.target]) as cam:
        yield lambda: cam(input_tensor=s.x, targets=targets)


@contender("convs", "grad-cam LayerCAM", "pytorch_grad_cam")
def gradcam_layercam(s: Setting) -> Iterator[Any]:
    from pytorch_grad_cam import LayerCAM

    targets = gradcam_targets(s.classes)
    with LayerCAM(model=s.model, target_layers=list(s.convs.values())) as cam:
        yield lambda: cam(input_tensor=s.x, targets=targets)


@contender("classes", "grad-cam GradCAM, a call per class", "pytorch_grad_cam")
def gradcam_classes(s: Setting) -> Iterator[Any]:
    from pytorch_grad_cam import GradCAM

    targets = gradcam_targets(s.many)
    with GradCAM(model=s.model, target_layers=[s.target]) as cam:
        yield lambda: [cam(input_tensor=s.x[:1], targets=[target]) for target in targets]


# ---- torchcam: the with-block is open around the call; maps come at the size of the layer and are upsampled here


@contender("layer", "torchcam GradCAM", "torchcam")
def torchcam_gradcam(s: Setting) -> Iterator[Any]:
    from torchcam.methods import GradCAM

    with GradCAM(s.model, s.layer) as cam:
        yield lambda: upsample(cam(s.classes, s.model(s.x))[0], s.size)


@contender("convs", "torchcam LayerCAM, fused", "torchcam")
def torchcam_layercam(s: Setting) -> Iterator[Any]:
    from torchcam.methods import LayerCAM

    with LayerCAM(s.model, list(s.convs)) as cam:
        yield lambda: cam.fuse_cams(cam(s.classes, s.model(s.x)), s.size)


@contender("classes", "torchcam GradCAM, retain_graph=True", "torchcam")
def torchcam_classes(s: Setting) -> Iterator[Any]:
    from torchcam.methods import GradCAM

    with GradCAM(s.model, s.layer) as cam:

        def call() -> Tensor:
            scores = s.model(s.x[:1])
            return upsample(torch.cat([cam(c, scores, retain_graph=True)[0] for c in s.many]), s.size)

        yield call


# ---- captum: no normalisation and no fusion of its own; both are added here in the plainest way


@contender("layer", "captum LayerGradCam", "captum")
def captum_gradcam(s: Setting) -> Iterator[Any]:
    from captum.attr import LayerAttribution, LayerGradCam

    cam = LayerGradCam(s.model, s.target)
    yield lambda: LayerAttribution.interpolate(
        cam.attribute(s.x, s.classes, relu_attributions=True), s.size, interpolate_mode="bilinear"
    )


@contender("convs", "captum LayerGradientXActivation, own fusion", "captum")
def captum_layers(s: Setting) -> Iterator[Any]:
    from captum.attr import LayerGradientXActivation

    cam = LayerGradientXActivation(s.model, list(s.convs.values()))

    def call() -> Tensor:
        total = torch.zeros(s.x.shape[0], *s.size, device=s.x.device)
        for product in cam.attribute(s.x, s.classes):
            total += upsample(product.detach().clamp_min(0).sum(1), s.size)
        return total / total.amax((1, 2), keepdim=True)

    yield call


@contender("classes", "captum LayerGradCam, a call per class", "captum")
def captum_classes(s: Setting) -> Iterator[Any]:
    from captum.attr import LayerAttribution, LayerGradCam

    cam = LayerGradCam(s.model, s.target)

    def call() -> Tensor:
        maps = [cam.attribute(s.x[:1], c, relu_attributions=True).detach() for c in s.many]
        return LayerAttribution.interpolate(torch.cat(maps), s.size, interpolate_mode="bilinear")

    yield call


# ---- do they compute the same thing?


def agreement(s: Setting, origins: set[str]) -> dict[str, float]:
    """Largest difference of raw maps from camplug's, both upsampled alike and divided by their maximum, per peer."""

    def scaled(maps: Tensor) -> Tensor:
        maps = maps if maps.shape[-2:] == s.size else upsample(maps, s.size)
        return maps / maps.amax((1, 2), keepdim=True)

    ours = camplug.GradCAM(s.model, s.layer).maps(s.x, s.classes)
    found: dict[str, Tensor] = {}
    if "captum" in origins:
        from captum.attr import LayerGradCam

        found["captum"] = LayerGradCam(s.model, s.target).attribute(s.x, s.classes).detach()[:, 0].relu()
    if "pytorch_grad_cam" in origins:
        from pytorch_grad_cam import GradCAM

        targets = gradcam_targets(s.classes)
        with GradCAM(model=s.model, target_layers=[s.target]) as cam:
            cam(input_tensor=s.x, targets=targets)
            kept = cam.activations_and_grads
            raw = cam.get_cam_image(
                s.x, s.target, targets, kept.activations[0].cpu().numpy(), kept.gradients[0].cpu().numpy()
            )
        found["grad-cam"] = torch.from_numpy(raw).relu().to(s.x.device)
    differences = {f"Grad-CAM, {peer}": float((scaled(m) - ours).abs().max()) for peer, m in found.items()}
    if "torchcam" in origins:
        from torchcam import methods

        with methods.GradCAM(s.model, s.layer) as cam:
            maps = cam(s.classes, s.model(s.x), normalized=False)[0]
        differences["Grad-CAM, torchcam"] = float((scaled(maps) - ours).abs().max())
        with methods.LayerCAM(s.model, list(s.convs)) as cam:
            summed = sum(upsample(m, s.size) for m in cam(s.classes, s.model(s.x), normalized=False))
        mine = camplug.LayerCAM(s.model, "convs", layer_weighting=None).maps(s.x, s.classes)
        differences["LayerCAM, plain sum over all convolutions, torchcam"] = float((scaled(summed) - mine).abs().max())
    return differences
