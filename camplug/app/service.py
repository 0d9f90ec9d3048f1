"""Answers for visitors of the web page: predicted classes, maps by several methods, and verdicts."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from camplug.errors import InputError
from camplug.explain import create, list_methods
from camplug.explain.base import LayerExplainer
from camplug.explain.explanation import Explanation
from camplug.explain.registry import get_method
from camplug.explain.side_by_side import explain_by_methods, list_quick_methods
from camplug.images.photo import read_photo
from camplug.plug import Against

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.trust.report import TrustReport

SIDE = 1280
"""Largest side of a photograph in pixels; larger ones are scaled down, since each map has the photograph's size."""
MOST_CLASSES = 2000
MOST_METHODS = 8
MOST_PROMPTS = 8
"""Lists of prompts whose classifiers are kept."""
WRAPPERS = {
    "none": "{}",
    "views (scales and mirror images)": "MultiView({})",
    "split and unite": "SplitUnite({})",
    "erasing": "IterativeErasing({})",
}
LAYERS = ("default", "last", "stages", "blocks", "convs")

LoadClassifier = Callable[[tuple[str, ...]], tuple[nn.Module, dict[str, Any]]]


@dataclass(frozen=True)
class Choices:
    """Class, methods and layers that a visitor chose.

    Attributes:
        cls: class as `encode_class` gives it, or a class name; empty for the predicted class.
        methods: names of methods.
        wrapper: key of `WRAPPERS`.
        layers: layer name or glob, or one of `LAYERS`; methods without layers ignore it.
        prompts: texts that are the classes of a model of images and texts.
    """

    cls: str = ""
    methods: tuple[str, ...] = ("fully", "gradcam")
    wrapper: str = "none"
    layers: str = "default"
    prompts: tuple[str, ...] = ()


class ClassChoice(NamedTuple):
    """Class of the model with its probability."""

    code: str
    name: str
    probability: float


@dataclass
class Answer:
    """Result of one request.

    Attributes:
        explanations: one per method.
        classes: classes of the model, the most probable first.
        notes: sentences on what was changed or left out, and warnings.
    """

    explanations: list[Explanation]
    classes: list[ClassChoice]
    notes: list[str] = field(default_factory=list)


class MapService:
    """Model that answers one request after the other.

    Args:
        load: function from prompts (none: the model's own classes) to a classifier and the arguments of its explainers.
        needs_prompts: the model has no classes of its own.
        prompts: prompts at the beginning.
        multi_label: probabilities by sigmoid.
    """

    def __init__(
        self,
        load: LoadClassifier,
        *,
        needs_prompts: bool = False,
        prompts: Sequence[str] = (),
        multi_label: bool = False,
    ) -> None:
        self.needs_prompts, self.prompts, self.multi_label = needs_prompts, tuple(prompts), multi_label
        self._load, self._lock = load, Lock()
        self._classifiers: OrderedDict[tuple[str, ...], tuple[nn.Module, dict[str, Any]]] = OrderedDict()
        if self.prompts or not needs_prompts:
            self._get_classifier(self.prompts)  # what is wrong with the model is said before the page opens

    def list_methods(self) -> list[str]:
        """List the methods that fit the model and take few passes, the default first."""
        found = list_quick_methods(self._get_classifier(self.prompts)[0]) if self._classifiers else list_methods()
        return list(dict.fromkeys([*Choices.methods, *found]))

    def explain(self, source: Any, choices: Choices) -> Answer:
        """Explain a photograph.

        Args:
            source: photograph, see `camplug.images.photo.read_photo`.
            choices: class, methods, layers and wrapper; all maps show the class of the first method.

        Raises:
            CamplugError: the photograph cannot be read, or no method works.
        """
        photo, notes = prepare_photo(source)
        if not 1 <= len(choices.methods) <= MOST_METHODS:
            raise InputError(f"{len(choices.methods)} methods are chosen; choose 1 to {MOST_METHODS}.")
        with self._lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model, options = self._get_classifier(choices.prompts or self.prompts)
            makers = {name: partial(_make_explainer, name, choices, model, options) for name in choices.methods}
            wanted = decode_class(choices.cls)
            found, refused = explain_by_methods(makers, photo, wanted)
        explanations = [result for _, result in found]
        for result in explanations:
            result.multi_label |= self.multi_label
        notes += [f"{entry['method']} is left out: {entry['error']}" for entry in refused]
        notes += list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))
        return Answer(explanations, list_class_choices(explanations[0]), notes)

    def check(self, source: Any, choices: Choices) -> TrustReport:
        """Check whether the map of the first method is trustworthy, see `camplug.trust.check`.

        Raises:
            CamplugError: the photograph cannot be read, or the method does not work.
        """
        from camplug.trust import check

        photo, _ = prepare_photo(source)
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the report has the same in its own words
            model, options = self._get_classifier(choices.prompts or self.prompts)
            explainer = _make_explainer(choices.methods[0], choices, model, options)
            wanted = decode_class(choices.cls)
            return check(explainer, photo, wanted, multi_label=self.multi_label or None)

    def _get_classifier(self, prompts: tuple[str, ...]) -> tuple[nn.Module, dict[str, Any]]:
        if self.needs_prompts and not prompts:
            raise InputError("this model has no classes of its own; give texts, for instance: a dog, a cat.")
        if prompts not in self._classifiers:
            self._classifiers[prompts] = self._load(prompts)
            while len(self._classifiers) > MOST_PROMPTS:
                self._classifiers.popitem(last=False)
        self._classifiers.move_to_end(prompts)
        return self._classifiers[prompts]


def _make_explainer(method: str, choices: Choices, model: nn.Module, options: dict[str, Any]) -> Any:
    if choices.wrapper not in WRAPPERS:
        raise InputError(f"there is no wrapper {choices.wrapper!r}; there are {', '.join(WRAPPERS)}.")
    if method not in list_methods():  # `create` would also import what a visitor names
        raise InputError(f"there is no method {method!r}; available are {', '.join(list_methods())}.")
    if choices.layers not in ("", "default") and issubclass(get_method(method), LayerExplainer):
        options = {**options, "layers": choices.layers}
    return create(WRAPPERS[choices.wrapper].format(method), model, **options)


def prepare_photo(source: Any) -> tuple[Image, list[str]]:
    """Return a photograph of at most `SIDE` pixels, and a note if it was larger.

    Raises:
        InputError: the photograph cannot be read.
    """
    if source is None:
        raise InputError("there is no photograph yet; choose one, or take the sample photograph.")
    try:
        photo = read_photo(source)
    except InputError as error:  # the path is one of the server's
        raise InputError(str(error).replace(repr(str(source)), "the photograph")) from None
    if max(photo.size) <= SIDE:
        return photo, []
    small = photo.copy()
    small.thumbnail((SIDE, SIDE))
    return small, [f"the photograph of {photo.width}x{photo.height} is scaled to {small.width}x{small.height} pixels."]


def list_class_choices(explanation: Explanation) -> list[ClassChoice]:
    """List the classes of the model with their probabilities, the most probable first; none without logits."""
    if explanation.logits is None:
        return []
    return [ClassChoice(encode_class(i), name, p) for i, name, p in explanation.top(MOST_CLASSES)]


def encode_class(index: int) -> str:
    """Return a class index as text.

    >>> encode_class(3), encode_class(Against(0))
    ('3', 'against 0')
    """
    return f"against {int(index)}" if isinstance(index, Against) else str(int(index))


def decode_class(text: str) -> int | str | None:
    """Return the class of a text: what `encode_class` gave, a class name, or nothing for the predicted class.

    >>> decode_class("3"), decode_class("against 0"), decode_class("tabby"), decode_class(" ")
    (3, Against(0), 'tabby', None)
    """
    text = text.strip()
    number = text.removeprefix("against ")
    if number.isdecimal():
        return int(number) if number == text else Against(number)
    return text or None


def format_report(report: TrustReport) -> str:
    """Return a verdict with its reasons as Markdown."""
    title = report.explanation.title().replace("\n", ": ")
    lines = [f"**{report.verdict}**: {report.explanation.method} of {title}", ""]
    lines += [f"- warning: {text}" for text in report.warnings] + [f"- {text}" for text in report.reasons]
    return "\n".join(lines)
