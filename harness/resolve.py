"""SPEC to models: `package.module:attr`, `path/to/file.py:attr`, or a name registered in the group `harness.models`.

attr is a model, a factory (a function or class that needs no argument), or a list, tuple or dict of either; `attr[2]`
and `attr[name]` are one of them. Importing runs the author's code, so the command line resolves in a process apart.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from harness.errors import CallError

GROUP = "harness.models"
FORM = "give package.module:attr or path/to/file.py:attr"
_SPEC = re.compile(r"(?P<where>.+):(?P<attr>[^\W\d][\w.]*)(?:\[(?P<item>.+)\])?")


class SpecError(CallError):
    """A SPEC that names no model; the message is one line that names the fix."""


@dataclass(frozen=True)
class Named:
    """A model, or a factory of one, with a readable name and the SPEC that names it alone."""

    name: str
    spec: str
    thing: object

    def build(self) -> object:
        """The model itself: a factory is called."""
        return _called(self.thing, self.spec) if _is_factory(self.thing) else self.thing


def resolve(spec: str) -> tuple[Named, ...]:
    """What `spec` names, in order; factories in a list are not called yet. Raises SpecError."""
    entry = {entry.name: entry for entry in registered()}.get(spec)
    if entry is not None:
        models = resolve(entry.value)
        return (Named(spec, entry.value, models[0].thing),) if len(models) == 1 else models
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise SpecError(_malformed(spec))
    where, attr, item = parts["where"], parts["attr"], parts["item"]
    thing = _attribute(_module(where, spec), attr, spec)
    collection = f"{where}:{attr}"
    if _is_factory(thing):
        thing = _failing_as_spec_error(lambda: _called(thing, spec), f"{spec}: calling {attr}() failed")
    if type(thing) not in (list, tuple, dict):
        if item is not None:
            raise SpecError(f"{collection} is one {type(thing).__name__}, no list: leave [{item}] out")
        _require_model(thing, spec)
        return (Named(attr.rpartition(".")[2], spec, thing),)
    models = _members(cast("Sequence[object] | dict[object, object]", thing), collection)
    return models if item is None else (_chosen(models, collection, item),)


def located(spec: str) -> tuple[Named, ...]:
    """What `spec` names, in order and as it is: nothing is called, and none of it need be a model. Raises SpecError."""
    entry = {entry.name: entry for entry in registered()}.get(spec)
    if entry is not None:
        things = located(entry.value)
        return (Named(spec, spec, things[0].thing),) if len(things) == 1 else things
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise SpecError(_malformed(spec))
    where, attr, item = parts["where"], parts["attr"], parts["item"]
    thing = _attribute(_module(where, spec), attr, spec)
    if type(thing) not in (list, tuple, dict):
        if item is not None:
            raise SpecError(f"{where}:{attr} is one {type(thing).__name__}, no list: leave [{item}] out")
        return (Named(attr.rpartition(".")[2], spec, thing),)
    collection = f"{where}:{attr}"
    things = _members(cast("Sequence[object] | dict[object, object]", thing), collection, models_only=False)
    return things if item is None else (_chosen(things, collection, item),)


def registered() -> tuple[EntryPoint, ...]:
    """Entry points of the group `harness.models`, by name."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: entry.name))


def close_to(word: str, words: Iterable[str], *, otherwise: str = "") -> str:
    """'; did you mean ...?' with the words most like `word`, or `otherwise` when none is."""
    close = difflib.get_close_matches(word, list(words), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else otherwise


# ------------------------------------------------------------------------------------------------- the module


def _malformed(spec: str) -> str:
    if ":" not in spec:
        names = [entry.name for entry in registered()]
        hint = close_to(spec, names, otherwise=f"; {FORM}, or a name that `harness models` lists")
        return f"no model is registered as {spec!r}{hint}"
    return f"{spec!r} is no SPEC; {FORM}"


def _module(where: str, spec: str) -> ModuleType:
    if where.endswith(".py") or "/" in where or "\\" in where:
        return _module_of_file(Path(where).expanduser(), spec)
    _require_module(where, spec)
    return _failing_as_spec_error(lambda: importlib.import_module(where), f"{spec}: importing {where} failed")


def _module_of_file(path: Path, spec: str) -> ModuleType:
    """The file as a module named after its stem, with its folder importable, as `python file.py` has it."""
    if not path.is_file():
        beside = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = close_to(path.name, beside, otherwise="; check the path")
        raise SpecError(f"{spec}: there is no file {path}{hint}")
    location = importlib.util.spec_from_file_location(path.stem, path)
    if location is None or location.loader is None:
        raise SpecError(f"{spec}: {path} is no Python file; {FORM}")
    module = importlib.util.module_from_spec(location)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[path.stem] = module
    _failing_as_spec_error(lambda: location.loader.exec_module(module), f"{spec}: importing {path} failed")  # type: ignore[union-attr]
    return module


def _require_module(name: str, spec: str) -> None:
    """A module that is not there is told from one whose import fails."""
    parent, _, last = name.rpartition(".")
    if parent:
        _require_module(parent, spec)
        package = _failing_as_spec_error(lambda: importlib.import_module(parent), f"{spec}: importing {parent} failed")
        search = getattr(package, "__path__", None)
        if search is None:
            raise SpecError(f"{spec}: {parent} is a module, not a package; write {parent}:{last} for what is in it")
    else:
        search = None
    if name in sys.modules:
        return
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        names = {module.name for module in pkgutil.iter_modules(search)}
        if search is None:  # editable installs are importable without being on the path
            names |= set(packages_distributions())
        hint = close_to(last, names, otherwise="; install it, or run where it can be imported")
        raise SpecError(f"{spec}: there is no module {name!r}{hint}")


def _attribute(module: ModuleType, path: str, spec: str) -> Any:
    thing: Any = module
    for part in path.split("."):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            public = [name for name in dir(thing) if not name.startswith("_")]
            named = getattr(thing, "__name__", type(thing).__name__)
            first = f"; it has {', '.join(public[:6])}" if public else "; it is empty"
            raise SpecError(f"{spec}: {named} has no {part!r}{close_to(part, public, otherwise=first)}") from None
    return thing


# ------------------------------------------------------------------------------------- models and factories


def _is_factory(thing: object) -> bool:
    """A function or class; other callables (an nn.Module, say) are taken for what they are."""
    return inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, functools.partial)


def _called(factory: Any, spec: str) -> object:
    try:
        needed = [
            parameter.name
            for parameter in inspect.signature(factory).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):  # a builtin without a signature: the call will tell
        needed = []
    if needed:
        raise SpecError(f"{spec} needs arguments ({', '.join(needed)}): name a model, or a factory that needs none")
    return factory()


def _require_model(thing: object, spec: str) -> None:
    from harness.adapters import NotAModel, adapt

    try:
        adapt(thing, spec)
    except NotAModel as error:
        raise SpecError(str(error)) from None
    except Exception:  # a model that its adapter trips over: the examination says so
        return


def _members(
    collection: Sequence[object] | dict[object, object], spec: str, *, models_only: bool = True
) -> tuple[Named, ...]:
    if not collection:
        raise SpecError(f"{spec} is empty: put a model or a factory in it")
    items = list(collection.items()) if isinstance(collection, dict) else list(enumerate(collection))
    for key, thing in items:
        if models_only and not _is_factory(thing):
            _require_model(thing, f"{spec}[{key}]")
    names = [str(key) if isinstance(collection, dict) else _own_name(thing) for key, thing in items]
    attr = spec.rpartition(":")[2]
    return tuple(
        Named(_readable(name, f"{attr}[{key}]", thing, names.count(name)), f"{spec}[{key}]", thing)
        for name, (key, thing) in zip(names, items, strict=True)
    )


def _own_name(thing: object) -> str:
    """What the object calls itself, if anything."""
    own = getattr(thing, "__name__", None) if _is_factory(thing) else getattr(thing, "name", None)
    return own if isinstance(own, str) and own.isprintable() and own != "<lambda>" else ""


def _readable(name: str, place: str, thing: object, times: int) -> str:
    if name:
        return name if times == 1 else f"{place} {name}"
    return place if _is_factory(thing) else f"{place} {type(thing).__name__}"


def _chosen(models: tuple[Named, ...], collection: str, item: str) -> Named:
    for model in models:
        if model.spec == f"{collection}[{item}]":
            return model
    keys = [model.spec[len(collection) + 1 : -1] for model in models]
    last = f"; it has [{keys[0]}] to [{keys[-1]}]"
    raise SpecError(f"{collection} has no [{item}]{close_to(item, keys, otherwise=last)}")


# ---------------------------------------------------------------------------------------------- one-line errors


def _failing_as_spec_error(work: Callable[[], Any], what: str) -> Any:
    try:
        return work()
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(f"{what}: {one_line(error)}{_place(error)}") from None


def one_line(error: BaseException) -> str:
    """Type and message of an exception in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """Where the author's own code was when it raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if frame.filename != __file__]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
