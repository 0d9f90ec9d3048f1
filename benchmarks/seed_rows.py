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


def densely(explainer: str, eight: bool) -> list[tuple[str, str]]:
    lines = (("32", explainer), ("16", f"Dense({explainer}, 16)"), ("8", f"Dense({explainer}, 8)"))
    views = "eight views" if eight else "one view"
    return [(f"stride {n}, {views}, {explainer}", f"MultiView({text})" if eight else text) for n, text in lines]


def conditional(explainer: str) -> list[tuple[str, str]]:
    return [
        (explainer, explainer),
        *(
            (f"+ {what} ({preset})", f"{wrapper}({explainer}, '{preset}')")
            for preset in ("paper", "repo")
            for what, wrapper in (("split", "SplitUnite"), ("erase", "IterativeErasing"), ("both", "ClassConditional"))
        ),
    ]


LARGE = "(1, 1.5, 2)"
WEIGHED = "weight='sigmoid'"


def settings(explainer: str) -> list[tuple[str, str]]:
    """Class-conditional inference in other settings than the paper's and the repository's."""
    split = f"SplitUnite({explainer}, 'paper', {WEIGHED}, whole=True, combine='sum')"
    return [
        (explainer, explainer),
        ("split: weighed, + whole, sum", split),
        ("split: the same, patches x2 (camplug)", f"SplitUnite({explainer})"),
        ("split: global, + whole", f"SplitUnite({explainer}, 'paper', scaling='raw', whole=True)"),
        ("erase: weighed, sum", f"IterativeErasing({explainer}, 'paper', {WEIGHED})"),
        ("erase: global, sum (camplug)", f"IterativeErasing({explainer})"),
        ("both (camplug)", f"ClassConditional({explainer})"),
    ]


BEST = f"Compete(MultiView({R}, scales={LARGE}), judge=MultiView(CAM, scales={LARGE}))"


def relative(explainer: str) -> list[tuple[str, str]]:
    """Class-conditional inference whose passes are scaled relative to the whole image."""
    how = f"{explainer}, 'paper', scaling='relative'"
    return [
        (explainer, explainer),
        ("split (camplug)", f"SplitUnite({explainer})"),
        ("split: relative, + whole", f"SplitUnite({how}, whole=True)"),
        ("the same, patches x2", f"SplitUnite({how}, whole=True, zoom=2)"),
        ("erase (camplug)", f"IterativeErasing({explainer})"),
        ("erase: relative, max", f"IterativeErasing({how}, combine='max')"),
        ("erase: relative, sum", f"IterativeErasing({how})"),
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
    "dense": [*densely("CAM", False), *densely(F, False), *densely(R, False)],
    "dense_views": [*densely("CAM", True), *densely(F, True)],
    "recipe": [
        ("Fully-CAM, no channel norm", R),
        ("competing classes", f"Compete({R})"),
        ("competing classes, Fully-CAM", f"Compete({F})"),
        ("competing classes, dense judge", f"Compete({R}, judge=Dense(CAM, 8))"),
        ("eight views", f"MultiView({R})"),
        ("scales 1, 1.5, 2 with flips", f"MultiView({R}, scales={LARGE})"),
        ("eight views, competing", f"Compete(MultiView({R}), judge=MultiView(CAM))"),
        ("1, 1.5, 2, competing", BEST),
        ("erase, competing", f"Compete(IterativeErasing({R}), judge=CAM)"),
        ("split, competing", f"Compete(SplitUnite({R}), judge=SplitUnite(CAM))"),
        (
            "1, 1.5, dense 16, competing",
            f"Compete(MultiView(Dense({R}, 16), scales=(1, 1.5)), judge=MultiView(CAM, scales={LARGE}))",
        ),
    ],
    "propagate": [
        ("1, 1.5, 2, competing", BEST),
        ("the same, propagated", f"Propagate({BEST})"),
        ("propagated, block outputs", f"Propagate({BEST}, layers=['blocks.2', 'blocks.4'])"),
        ("CAM, 2", "MultiView(CAM, scales=(2,), flip=False)"),
        ("the same, propagated", "Propagate(MultiView(CAM, scales=(2,), flip=False))"),
        (
            "propagated, block outputs",
            "Propagate(MultiView(CAM, scales=(2,), flip=False), layers=['blocks.2', 'blocks.4'])",
        ),
    ],
    "relative": relative("CAM"),
    "relative_fully": relative(R),
    "conditional": [*conditional("CAM"), *conditional(F)],
    "settings": [*settings("CAM"), *settings(R)],
}
