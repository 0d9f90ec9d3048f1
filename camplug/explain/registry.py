"""Registry of methods and wrappers, and construction of explainers from text."""

from __future__ import annotations

import ast
import difflib
import fnmatch
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from camplug.errors import CamplugError, InputError
from camplug.plugins import PREFIX, import_object, is_same_definition, load_plugins

if TYPE_CHECKING:
    from camplug.explain.base import Explainer
    from camplug.explain.wrapper import Wrapper

BEST = (
    "Propagate(Compete(MultiView(FullyCAM(channel_norm=False), scales=(1, 1.5, 2)), "
    "judge=MultiView(CAM, scales=(1, 1.5, 2))))"
)
RECIPES = {"best": BEST}  # expressions by name
_RECIPE = re.compile(r"""('[^']*'|"[^"]*"|import:[\w.:]+)|\b(best)\b(?!\s*[(=])""", re.IGNORECASE)  # and what to skip

_methods: dict[str, type[Explainer]] = {}
_wrappers: dict[str, type[Wrapper]] = {}
E_ = TypeVar("E_", bound="type[Explainer]")
W_ = TypeVar("W_", bound="type[Wrapper]")


def register(name: str) -> Callable[[E_], E_]:
    """Return a class decorator that makes an explainer available to `create`, `list_methods` and the command line.

    The same class of the same module may be registered again, as when a notebook cell runs again.

    Raises:
        InputError: when the decorator is applied, another class has the name.
    """

    def add(cls: E_) -> E_:
        _add(_methods, name, cls)
        cls.name = name
        return cls

    return add


def register_wrapper(name: str) -> Callable[[W_], W_]:
    """Return a class decorator that makes a wrapper available to `create`, `list_wrappers` and the command line.

    Raises:
        InputError: when the decorator is applied, another class has the name, see `register`.
    """

    def add(cls: W_) -> W_:
        _add(_wrappers, name, cls)
        cls.kind = name
        return cls

    return add


def _add(registry: dict[str, Any], name: str, cls: type) -> None:
    old: Any = _methods.get(name) or _wrappers.get(name)
    if old is not None and not (name in registry and is_same_definition(old, cls)):
        raise InputError(
            f"the name {name!r} is taken by {old.__module__}.{old.__qualname__}; register the new one by another name."
        )
    registry[name] = cls


def list_methods(pattern: str = "*", *, fitted: bool = False) -> list[str]:
    """List the registered methods that match a wildcard pattern, in alphabetical order.

    Args:
        pattern: wildcard pattern.
        fitted: also list methods that need more than the model, something made of training images.

    >>> list_methods("grad*")
    ['gradcam', 'gradcam++', 'gradeclip', 'gradientrollout']
    """
    load_plugins()
    return [n for n in sorted(fnmatch.filter(_methods, pattern)) if fitted or not _methods[n].needs_fit]


def list_wrappers(pattern: str = "*") -> list[str]:
    """List the registered wrappers that match a wildcard pattern, in alphabetical order.

    >>> list_wrappers("multi*")
    ['multiview']
    """
    load_plugins()
    return sorted(fnmatch.filter(_wrappers, pattern))


def get_method(name: str) -> type[Explainer]:
    """Return the explainer class with a registered name or class name; ignores case, "-" and "_".

    Args:
        name: registered name, or "import:PACKAGE.MODULE:NAME".

    Raises:
        InputError: the method does not exist, or what is imported is no explainer.
    """
    if name.startswith(PREFIX):
        return _import_explainer(name)
    load_plugins()
    plain = _simplify_name(name)
    for candidate in (plain, plain.removesuffix("cam"), plain + "cam") if plain else ():
        if candidate in _methods:
            return _methods[candidate]
    for cls in _methods.values():
        if cls.__name__.lower() == plain:
            return cls
    near = difflib.get_close_matches(plain, _wrappers, n=1, cutoff=0.7)
    near = near or difflib.get_close_matches(plain, _methods, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if plain in _wrappers:
        hint = f" It is a wrapper; write what it wraps: {name}(FullyCAM)."
    raise InputError(f"there is no method {name!r}; available are {', '.join(list_methods(fitted=True))}.{hint}")


def get_wrapper(name: str) -> type[Wrapper]:
    """Return the wrapper class with a registered name; ignores case, "-" and "_".

    Raises:
        InputError: the wrapper does not exist.
    """
    load_plugins()
    if _simplify_name(name) not in _wrappers:
        raise InputError(f"there is no wrapper {name!r}; available are {', '.join(list_wrappers())}.")
    return _wrappers[_simplify_name(name)]


def create(name: str, model: nn.Module, **options: Any) -> Explainer:
    """Build an explainer from a name, or from a Python expression without the model.

    `create("fully", model, layer_weighting="max")`, or
    `create("MultiView(FullyCAM(channel_norm=False), scales=(0.5, 1), flip=True)", model)`.

    Args:
        name: method of `list_methods`, or wrappers of `list_wrappers` around one; arguments are Python literals. In
            place of a name, "import:PACKAGE.MODULE:NAME" is a class of your own, and "best" what `best_seeds` returns.
        model: model to explain.
        options: further arguments of the innermost method.

    Raises:
        InputError: a method or wrapper does not exist, or the text is no such expression.
    """
    name = expand_recipes(name)
    if "(" not in name:
        return get_method(name)(model, **options)
    load_plugins()
    try:
        line = re.sub(r"(?<=\w)\+\+(?=\s*[(),])", "PlusPlus", name.strip())  # gradcam++ is no name in Python
        line = _IMPORT.sub(lambda m: f"{_MARK}{m[1]}__{m[2]}".replace(".", "___"), line)  # an identifier of Python
        tree = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two: nested too deeply
        raise InputError(f'{name!r} cannot be read; write for instance "MultiView(FullyCAM, flip=True)".') from None
    return _build(tree, model, options, name)


def best_seeds(model: nn.Module, **options: Any) -> Explainer:
    """Return the explainer with the best maps for pseudo-labels of the recipes without training, for any CNN.

    Fully-CAM without division by channel maxima at three scales and their mirror images, competition of an image's
    classes by CAM at these scales, and propagation over similar features; the same as `create("best", model)`. It costs
    about 17 times the time of `FullyCAM` on one view (docs/seeds.md). A model without a pooled map needs another judge
    than CAM: write the expression `camplug.explain.registry.BEST` with GradCAM.

    Args:
        model: classifier with convolutions.
        options: arguments of `FullyCAM`, such as `class_names` and `preprocess`.
    """
    return create("best", model, **options)


def expand_recipes(text: str) -> str:
    """Return an explainer's text with the names of `RECIPES` replaced by what they stand for.

    >>> expand_recipes("Dense(Best, 16)") == f"Dense({BEST}, 16)"
    True
    >>> expand_recipes("LPCAM(prototypes='best.npz')")
    "LPCAM(prototypes='best.npz')"
    """
    return _RECIPE.sub(lambda m: m[1] or RECIPES[m[2].lower()], text)


_IMPORT = re.compile(r"\bimport:([\w.]+):(\w+)")
_MARK = "_imported_"


def _get_class(name: str, text: str) -> type[Explainer]:
    """Return the class that an identifier of an expression stands for."""
    if not name.startswith(_MARK):
        return get_method(name)
    for found in _IMPORT.finditer(text):
        if f"{_MARK}{found[1]}__{found[2]}".replace(".", "___") == name:
            return _import_explainer(found[0])
    return get_method(name)


def _import_explainer(text: str) -> type[Explainer]:
    from camplug.explain.base import Explainer

    found = import_object(text)
    if not (isinstance(found, type) and issubclass(found, Explainer)):
        raise InputError(f"{text!r} is {found!r}; give a class derived from camplug.Explainer.")
    if not found.name and not is_wrapper(found):
        found.name = found.__name__.lower()
    return found


def is_wrapper(cls: type[Explainer]) -> bool:
    """Return whether a class of explainers wraps another explainer."""
    from camplug.explain.wrapper import Wrapper

    return issubclass(cls, Wrapper)


def _build(node: ast.expr, model: nn.Module, options: dict[str, Any], text: str) -> Explainer:
    call = node if isinstance(node, ast.Call) else None
    head = call.func if call else node
    if not isinstance(head, ast.Name) or (call and any(k.arg is None for k in call.keywords)):
        raise InputError(
            f"{ast.unparse(node)!r} in {text!r} is no explainer; write for instance MultiView(FullyCAM, flip=True)."
        )
    keywords = {str(k.arg): _evaluate(k.value, model, text) for k in call.keywords} if call else {}
    arguments = list(call.args) if call else []
    made: type[Explainer] = _wrappers.get(_simplify_name(head.id)) or _get_class(head.id, text)
    first: Any = model
    if not is_wrapper(made):
        keywords = {**options, **keywords}
    elif arguments:
        first = _build(arguments.pop(0), model, options, text)
    else:
        raise InputError(f"{head.id} wraps an explainer; write {head.id}(FullyCAM).")
    try:
        return made(first, *[_evaluate(a, model, text) for a in arguments], **keywords)
    except CamplugError:
        raise
    except TypeError as error:
        says = re.sub(r"^\w+\.__init__\(\) ", "", str(error))
        raise InputError(f"{ast.unparse(node)!r} does not fit {made.__name__}: {says}.") from None


def _evaluate(node: ast.expr, model: nn.Module, text: str) -> Any:
    """Return a literal, or another explainer of the same model."""
    if isinstance(node, (ast.Name, ast.Call)):
        return _build(node, model, {}, text)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise InputError(
            f"{ast.unparse(node)!r} in {text!r} is no plain value; give numbers, texts in quotes, lists, True, False, "
            "None, or an explainer."
        ) from None


def _simplify_name(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
