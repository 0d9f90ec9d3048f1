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
SUM_SPLIT = "combine='sum', scaling='own', weight='sigmoid'"
SUM_ERASE = "combine='sum', scaling='raw'"
SUM_BOTH = "split={'combine': 'sum', 'scaling': 'own', 'weight': 'sigmoid'}, erase={'combine': 'sum', 'scaling': 'raw'}"


def settings(explainer: str) -> list[tuple[str, str]]:
    """Class-conditional inference in other settings than the paper's and the repository's."""
    split = f"SplitUnite({explainer}, 'paper', {WEIGHED}, whole=True, combine='sum')"
    return [
        (explainer, explainer),
        ("split: weighed, + whole, sum", split),
        ("split: the same, patches x2", f"SplitUnite({explainer}, {SUM_SPLIT})"),
        ("split: global, + whole", f"SplitUnite({explainer}, 'paper', scaling='raw', whole=True)"),
        ("erase: weighed, sum", f"IterativeErasing({explainer}, 'paper', {WEIGHED})"),
        ("erase: global, sum", f"IterativeErasing({explainer}, {SUM_ERASE})"),
        ("both of these", f"ClassConditional({explainer}, {SUM_BOTH})"),
    ]


BEST = f"Compete(MultiView({R}, scales={LARGE}), judge=MultiView(CAM, scales={LARGE}))"

COSINES = "power=3, reach=None, flip=False"
LAST_MAPS = f"layers='stages', {COSINES}"
TWO_BLOCKS = f"layers=['blocks.2', 'blocks.4'], {COSINES}"


def relative(explainer: str) -> list[tuple[str, str]]:
    """Class-conditional inference whose passes are scaled relative to the whole image."""
    how = f"{explainer}, 'paper', scaling='relative'"
    return [
        (explainer, explainer),
        ("split: weighed, + whole, sum, patches x2", f"SplitUnite({explainer}, {SUM_SPLIT})"),
        ("split: relative, + whole, maximum", f"SplitUnite({how}, whole=True)"),
        ("the same, patches x2", f"SplitUnite({how}, whole=True, zoom=2)"),
        ("the same, mean (default)", f"SplitUnite({explainer})"),
        ("erase: global, sum", f"IterativeErasing({explainer}, {SUM_ERASE})"),
        ("erase: relative, sum", f"IterativeErasing({how})"),
        ("erase: relative, maximum (default)", f"IterativeErasing({explainer})"),
    ]


def conditional_fully() -> list[tuple[str, str]]:
    """Class-conditional inference by default: on Fully-CAM, and inside the best recipe of two scales."""
    views = "scales=(1, 1.5)"
    fully, judge = f"MultiView({R}, {views})", f"MultiView(CAM, {views})"
    return [
        ("whole image", R),
        ("split", f"SplitUnite({R})"),
        ("split, parts at their own size", f"SplitUnite({R}, zoom=1)"),
        ("erase", f"IterativeErasing({R})"),
        ("both", f"ClassConditional({R})"),
        ("1, 1.5, competing, propagated", f"Propagate(Compete({fully}, judge={judge}))"),
        ("the same, split", f"Propagate(Compete(SplitUnite({fully}), judge=SplitUnite({judge})))"),
    ]


def conditional_dense(explainer: str) -> list[tuple[str, str]]:
    """Class-conditional inference as published, and with passes on the scale of the whole image."""
    return [
        ("whole image", explainer),
        ("split, as published", f"SplitUnite({explainer}, 'paper')"),
        ("split: relative, + whole, maximum", f"SplitUnite({explainer}, combine='max', zoom=1)"),
        ("split: relative, + whole, mean", f"SplitUnite({explainer}, zoom=1)"),
        ("erase, as published", f"IterativeErasing({explainer}, 'paper')"),
        ("erase: relative, maximum (default)", f"IterativeErasing({explainer})"),
        ("both, as published", f"ClassConditional({explainer}, 'paper')"),
        ("both: relative, + whole, maximum", f"ClassConditional({explainer}, split={{'combine': 'max', 'zoom': 1}})"),
    ]


BLOCKS = "layers=['body.model.blocks.*']"
TWICE = "scales=(2,), flip=False"
LPCAM = "LPCAM(prototypes='prototypes.npz')"  # made by `camplug fit-prototypes`

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
        ("erase, competing", f"Compete(IterativeErasing({R}, {SUM_ERASE}), judge=CAM)"),
        ("split, competing", f"Compete(SplitUnite({R}, {SUM_SPLIT}), judge=SplitUnite(CAM, {SUM_SPLIT}))"),
        (
            "1, 1.5, dense 16, competing",
            f"Compete(MultiView(Dense({R}, 16), scales=(1, 1.5)), judge=MultiView(CAM, scales={LARGE}))",
        ),
    ],
    "propagate": [
        ("1, 1.5, 2, competing", BEST),
        ("propagated: last maps, cosines alone", f"Propagate({BEST}, {LAST_MAPS})"),
        ("propagated: two block outputs, cosines alone", f"Propagate({BEST}, {TWO_BLOCKS})"),
        ("propagated (best)", f"Propagate({BEST})"),
        ("CAM, 2", f"MultiView(CAM, {TWICE})"),
        ("propagated: last maps, cosines alone", f"Propagate(MultiView(CAM, {TWICE}), {LAST_MAPS})"),
    ],
    "prototypes": [
        ("CAM", "CAM"),
        ("Finer-CAM", "FinerCAM(GradCAM)"),
        ("LPCAM", LPCAM),
        ("CAM, 2", f"MultiView(CAM, {TWICE})"),
        ("LPCAM, 2", f"MultiView({LPCAM}, {TWICE})"),
        ("LPCAM, 2, propagated", f"Propagate(MultiView({LPCAM}, {TWICE}))"),
    ],
    "relative": relative("CAM"),
    "conditional_fully": conditional_fully(),
    "conditional_dense": conditional_dense("Dense(CAM, 16)"),
    "conditional": [*conditional("CAM"), *conditional(F)],
    "settings": [*settings("CAM"), *settings(R)],
    "lite0": [("CAM", "CAM"), ("Grad-CAM", "GradCAM"), ("LayerCAM", "LayerCAM"), ("Fully-CAM, no channel norm", R)],
    "vit": [
        ("CAM", "CAM"),
        ("Grad-CAM", "GradCAM"),
        ("LayerCAM", "LayerCAM"),
        ("Fully-CAM, all blocks", f"FullyCAM({BLOCKS})"),
        ("Fully-CAM, all blocks, no channel norm", f"FullyCAM({BLOCKS}, channel_norm=False)"),
        ("attention rollout", "Rollout"),
        ("gradient-weighted rollout", "GradientRollout"),
        ("LeGrad", "LeGrad"),
        ("Grad-ECLIP", "GradECLIP"),
        ("CAM, propagated by attention", "PropagateAttention(CAM)"),
    ],
}
