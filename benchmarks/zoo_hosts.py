"""Networks that camplug explains, small and with random weights: timm, torchvision, Hugging Face and open_clip."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

CLASSES = 5
TEXTS = 3


@dataclass(frozen=True)
class Host:
    """A network, and what a reference must know of its tokens.

    Attributes:
        source: package.
        name: name of the network.
        build: function that builds it.
        side: height and width of its images.
        prefix: number of tokens before the patches.
        pair: it is a model of images and texts.
    """

    source: str
    name: str
    build: Callable[[], nn.Module]
    side: int = 64
    prefix: int = 0
    pair: bool = False

    def make(self) -> nn.Module:
        """Build the network in float64 and evaluation mode, with weights that depend on the seed alone."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            model = self.build()
            model = (WithTexts(model) if self.pair else model).double().eval()
        for p in model.parameters():  # some heads start with zeros
            if p.ndim > 1:
                nn.init.normal_(p, std=min(0.2, (2 / p[0].numel()) ** 0.5))
        return model

    def make_images(self) -> torch.Tensor:
        """Make two random images [2,3,H,W]."""
        return torch.randn(2, 3, self.side, self.side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class WithTexts(nn.Module):
    """Logits [N,texts] of images, from a whole model of images and texts, whose text tower runs each time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        length, first = (16, 300) if hasattr(model, "encode_text") else (8, 3)
        numbers = torch.randint(first, first + 40, (TEXTS, length), generator=torch.Generator().manual_seed(2))
        numbers[:, -1] = 49407 if hasattr(model, "encode_text") else 2  # the end of a text
        self.register_buffer("numbers", numbers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images [N,3,H,W]."""
        if hasattr(self.model, "encode_text"):
            seen, read, scale, *_ = self.model(images, self.numbers)
            return scale * seen @ read.T
        return self.model(input_ids=self.numbers, pixel_values=images).logits_per_image


def list_hosts() -> Iterator[Host]:
    """List all networks; those of packages that are not installed fail when they are built."""
    yield from _list_timm()
    yield from _list_torchvision()
    yield from _list_hf()
    yield from _list_pairs()
    yield from _list_open_clip()


def find_host(title: str) -> Host:
    """Return the network "SOURCE NAME"."""
    return next(host for host in list_hosts() if f"{host.source} {host.name}" == title)


def _list_timm() -> Iterator[Host]:
    def host(name: str, side: int = 64, prefix: int = 0, **options: Any) -> Host:
        def build() -> nn.Module:
            import timm

            return timm.create_model(name, num_classes=CLASSES, **options)

        return Host("timm", name, build, side, prefix)

    for name in ("test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_mambaout", "test_nfnet"):
        yield host(name)
    for name in ("resnet10t", "mobilenetv3_small_050", "regnetx_002", "ghostnet_050", "mobileone_s0", "repvgg_a0"):
        yield host(name)
    for name in ("hardcorenas_a", "edgenext_xx_small", "mobilevit_xxs", "mobilevitv2_050", "fastvit_t8"):
        yield host(name)
    yield host("test_vit", 160, 1)
    yield host("test_vit2", 64, 0)
    yield host("test_vit3", 160, 1)
    yield host("test_vit4", 160, 1)
    for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224"):
        yield host(name, 64, 1, img_size=64)
    yield host("deit_tiny_distilled_patch16_224", 64, 2, img_size=64)
    yield host("vit_small_patch14_reg4_dinov2", 56, 5, img_size=56, depth=3)
    yield host("vit_base_patch16_siglip_224", 64, 0, img_size=64, depth=2)
    yield host("naflexvit_base_patch16_map", 64, 0, depth=2)
    yield host("eva02_tiny_patch14_224", 56, 1, img_size=56)
    yield host("beit_base_patch16_224", 64, 1, img_size=64, depth=2)
    yield host("cait_xxs24_224", 64, 0, img_size=64, depth=2)
    yield host("swin_tiny_patch4_window7_224", 64, img_size=64, embed_dim=24, depths=(1, 1), window_size=4)
    yield host("swinv2_tiny_window8_256", 64, img_size=64, embed_dim=24, depths=(1, 1), window_size=4)
    yield host("pvt_v2_b0")
    yield host("mvitv2_tiny", 64, 0, img_size=64)
    yield host("xcit_nano_12_p16_224")
    yield host("hiera_tiny_224", 224)
    yield host("crossvit_tiny_240", 240)
    yield host("mixer_s32_224", 64, 0, img_size=64)
    yield host("coatnet_nano_rw_224", 64, img_size=64)
    yield host("efficientformer_l1", 224)


def _list_torchvision() -> Iterator[Host]:
    def host(name: str, side: int = 64, prefix: int = 0, **options: Any) -> Host:
        def build() -> nn.Module:
            import torchvision

            return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)

        return Host("torchvision", name, build, side, prefix)

    for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5"):
        yield host(name)
    yield host("efficientnet_b0")
    yield host("densenet121")
    yield host("regnet_y_400mf")
    yield host("convnext_tiny")
    yield host("googlenet", aux_logits=False, init_weights=False)
    yield host("swin_t")
    yield host("vit_b_16", 64, 1, image_size=64)


BLOCKS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
VISION = BLOCKS | {"image_size": 64, "patch_size": 16}
TEXT = BLOCKS | {
    "vocab_size": 50, "max_position_embeddings": 16, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 2,
    "pad_token_id": 1,
}  # fmt: skip
DINO = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2, "image_size": 64}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
PYRAMID = STAGES | {"num_attention_heads": [1, 2, 2, 2]}
WINDOWS = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4}
FOCAL = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3]}
MOBILE = {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32]}
MOBILE |= {"num_attention_heads": 2}
LEVIT = {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 2], "depths": [1, 1, 1]}
LEVIT |= {"key_dim": [8, 8, 8]}
CLASSIFIERS: dict[str, tuple[int, dict[str, Any]]] = {
    "ViT": (1, VISION),
    "DeiT": (2, VISION),
    "Beit": (1, VISION | {"out_indices": [0, 1, 2, 3]}),
    "Data2VecVision": (1, VISION | {"out_indices": [0, 1, 2, 3]}),
    "ViTMSN": (1, VISION),
    "IJepa": (0, VISION),
    "Dinov2": (1, DINO | {"patch_size": 16}),
    "Dinov2WithRegisters": (5, DINO | {"patch_size": 16, "num_register_tokens": 4}),
    "Swin": (0, WINDOWS),
    "Swinv2": (0, WINDOWS),
    "Hiera": (0, {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}),
    "ConvNext": (0, STAGES),
    "ConvNextV2": (0, STAGES),
    "ResNet": (0, STAGES | {"embedding_size": 8}),
    "RegNet": (0, STAGES | {"embedding_size": 8, "groups_width": 8}),
    "PoolFormer": (0, STAGES),
    "Segformer": (0, PYRAMID),
    "Pvt": (0, PYRAMID | {"image_size": 64}),
    "MobileNetV2": (0, {"depth_multiplier": 0.35, "image_size": 64}),
    "FocalNet": (0, FOCAL),
    "MobileViT": (0, MOBILE),
    "Levit": (0, LEVIT),
}


def _list_hf() -> Iterator[Host]:
    def host(kind: str, prefix: int, options: dict[str, Any]) -> Host:
        def build() -> nn.Module:
            import transformers

            config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **options)
            return getattr(transformers, f"{kind}ForImageClassification")(config)

        return Host("hf", f"{kind}ForImageClassification", build, 64, prefix)

    for kind, (prefix, options) in CLASSIFIERS.items():
        yield host(kind, prefix, options)
    towers = {"vision_config": VISION, "text_config": TEXT}
    yield host("CLIP", 1, towers | {"projection_dim": 16})
    yield host("Siglip", 0, {"vision_config": VISION, "text_config": TEXT | {"projection_size": 32}})


def _list_pairs() -> Iterator[Host]:
    def host(kind: str, prefix: int, **options: Any) -> Host:
        def build() -> nn.Module:
            import transformers

            config = getattr(transformers, f"{kind}Config")(**options)
            return getattr(transformers, f"{kind}Model")(config)

        return Host("hf", f"{kind}Model", build, 64, prefix, pair=True)

    for kind in ("CLIP", "ChineseCLIP", "MetaClip2"):
        yield host(kind, 1, vision_config=VISION, text_config=TEXT, projection_dim=16)
    yield host("Siglip", 0, vision_config=VISION, text_config=TEXT | {"projection_size": 32})
    packed = BLOCKS | {"patch_size": 16, "num_patches": 16}
    yield host("Siglip2", 0, vision_config=packed, text_config=TEXT | {"projection_size": 32})


def _list_open_clip() -> Iterator[Host]:
    words = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    vit = {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}

    def host(name: str, prefix: int, vision: dict[str, Any], side: int = 64, *, own_text: bool = False) -> Host:
        def build() -> nn.Module:
            from open_clip.model import CLIP, CustomTextCLIP

            return (CustomTextCLIP if own_text else CLIP)(16, vision, dict(words))

        return Host("open_clip", name, build, side, prefix, pair=True)

    yield host("ViT", 1, vit)
    yield host("ViT with average pooling", 1, vit | {"pool_type": "avg", "final_ln_after_pool": True})
    yield host("ViT with attention pooling", 1, vit | {"attentional_pool": True, "attn_pooler_heads": 2})
    yield host("ResNet", 0, vit | {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None})
    timm = {"timm_model_pretrained": False, "timm_proj": "linear", "image_size": 160}
    yield host("timm ViT", 1, timm | {"timm_model_name": "test_vit", "timm_pool": "token"}, 160, own_text=True)
    convnext = timm | {"timm_model_name": "test_convnext", "timm_pool": "avg", "image_size": 64}
    yield host("timm ConvNeXt", 0, convnext, own_text=True)
