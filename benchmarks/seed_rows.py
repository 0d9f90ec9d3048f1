"""The rows of the tables that `benchmarks/seeds.py` measures: a label, and the explainer as one writes it."""

from __future__ import annotations

F, R = "FullyCAM", "FullyCAM(channel_norm=False)"
# the last feature map of each resolution of EfficientNet-Lite0 is in these blocks
LAST = 'layers=["conv_head", "blocks.6.*.conv_*", "blocks.5.*.conv_*"]'
FOUR = 'layers=["conv_head", "blocks.6.*.conv_*", "blocks.5.*.conv_*", "blocks.4.*.conv_*", "blocks.3.*.conv_*"]'
THREE = FOUR[:-1] + ', "blocks.2.*.conv_*"]'


def views(explainer: str) -> list[tuple[str, str]]:
    return [
        (
            f"{label}, {explainer}",
            explainer if scales == "1" else f"MultiView({explainer}, scales=({scales}), flip={flip})",
        )
        for label, scales, flip in (
            ("1", "1", False),
            ("+ 0.5", "1, 0.5", False),
            ("+ 1.5", "1, 0.5, 1.5", False),
            ("+ 2", "1, 0.5, 1.5, 2", False),
            ("+ flip", "1, 0.5, 1.5, 2", True),
        )
    ]


def densely(explainer: str) -> list[tuple[str, str]]:
    return [
        (f"{label}, {explainer}", text if view else f"MultiView({text})")
        for view in (True, False)
        for label, text in (
            (f"stride 32, {'one view' if view else 'eight'}", explainer),
            (f"stride 16, {'one view' if view else 'eight'}", f"Dense({explainer}, 16)"),
            (f"stride 8, {'one view' if view else 'eight'}", f"Dense({explainer}, 8)"),
        )
    ]


def conditional(explainer: str) -> list[tuple[str, str]]:
    return [
        (f"{explainer}", explainer),
        ("+ split (paper)", f"SplitUnite({explainer})"),
        ("+ erase (paper)", f"IterativeErasing({explainer})"),
        ("+ both (paper)", f"ClassConditional({explainer})"),
        ("+ split (repo)", f"SplitUnite({explainer}, 'repo')"),
        ("+ erase (repo)", f"IterativeErasing({explainer}, 'repo')"),
        ("+ both (repo)", f"ClassConditional({explainer}, 'repo')"),
    ]


TABLES: dict[str, list[tuple[str, str]]] = {
    "layers": [
        ("last stage", f"FullyCAM({LAST})"),
        ("+ stage 4", f"FullyCAM({FOUR})"),
        ("+ stage 3", f"FullyCAM({THREE})"),
        ("all convolutions", F),
    ],
    "methods": [
        ("CAM", "CAM"),
        ("Grad-CAM", "GradCAM"),
        ("Grad-CAM++", "GradCAMPlusPlus"),
        ("XGrad-CAM", "XGradCAM"),
        ("LayerCAM", "LayerCAM"),
        ("LayerCAM, all convolutions", 'LayerCAM("convs")'),
        ("Fully-CAM", F),
        ("Fully-CAM, no channel norm", R),
    ],
    "views": [*views("CAM"), *views(F), *views(R)],
    "dense": [*densely("CAM"), *densely(F), *densely(R)],
    "conditional": [*conditional("CAM"), *conditional(R)],
}
