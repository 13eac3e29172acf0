"""Which nights speak of the same code: the sources of a model and of the examiner, and the versions of what they use.

Evidence is against a law of *this* model. After a change of its code, of a file that it imports, of the examiner's
checks or statistics, or of torch, what was seen before may be of a defect that is gone, so a new series starts and the
old one is closed. Changes elsewhere, in documents, tests or other models, close nothing: sources are compared rather
than commits, or a project under work would never have two nights to add up. The commit is written down beside.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import harness
from harness.report import versions

NO_EVIDENCE = (
    *("bench", "compare", "mutants", "templates", "catalogue.py", "cli.py", "display.py", "html.py", "junit.py"),
    *("pytest_outcome.py", "pytest_plugin.py", "selftest.py", "selftest_rows.py", "terminal.py", "verify.py"),
)
"""Folders and files of the examiner that leave all evidence as it is."""


def facts(spec: str, device: str) -> dict[str, Any]:
    """What must be the same for two nights of the model to be added up."""
    sources, imported = _sources(spec)
    return {
        "spec": spec,
        "device": device,
        "model": _digest(sources),
        "harness": _examiner(),
        "versions": {**_versions(), **{name: _version(name) for name in sorted(imported)}},
    }


def fingerprint(facts: dict[str, Any]) -> str:
    """16 hexadecimal digits of the facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The names of the facts that differ, as words."""
    flat = [{**facts, **facts.get("versions", {})} for facts in (before, after)]
    for facts in flat:
        facts.pop("versions", None)
    names = sorted(name for name in {*flat[0], *flat[1]} if flat[0].get(name) != flat[1].get(name))
    return ", ".join(names) or "nothing"


def commit() -> str:
    """The commit that is checked out here, with a + where files differ from it; empty where there is none."""
    try:
        head, dirty = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if dirty else "")


@cache
def _versions() -> dict[str, str]:
    return {name: text for name, text in versions().items() if name != "harness"}  # whose sources are compared


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _version(name: str) -> str:
    """Of the distribution that a top-level import comes from."""
    owners = _distributions().get(name, [])
    return " ".join(version(owner) for owner in sorted(set(owners))) or "unknown"


def _digest(files: tuple[tuple[str, Path], ...]) -> str:
    """Of names and bytes."""
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


@cache
def _examiner() -> str:
    """Of the examiner, as it was when this process first asked: what is imported stays as it is."""
    root = Path(harness.__file__).parent
    files = sorted((file.relative_to(root).as_posix(), file) for file in root.rglob("*.py"))
    return _digest(tuple((name, file) for name, file in files if name.partition("/")[0] not in NO_EVIDENCE))


# ------------------------------------------------------------------------------------ the sources of a model


def _sources(spec: str) -> tuple[tuple[tuple[str, Path], ...], set[str]]:
    """The file of the SPEC, those that it imports from beside it, their packages; and top-level names of other imports.

    Nothing is executed. A SPEC whose file is not found has no sources, and only versions to be told apart by.
    """
    root, module = _start(spec)
    found: dict[str, Path] = {}
    foreign: set[str] = set()
    waiting = [module]
    while root is not None and waiting:
        name = waiting.pop()
        file = _file(root, name)
        if file is None or name in found:
            continue
        found[name] = file
        if "." in name:  # whose package is imported before
            waiting.append(name.rpartition(".")[0])
        for target in _imports(file.read_bytes(), name, file.name == "__init__.py"):
            top = target.partition(".")[0]
            own = top == module.partition(".")[0] if "." in module else _file(root, top) is not None
            if own:
                waiting.append(target)
            else:
                foreign.add(top)
    used = {name for name in foreign if name in _distributions() and name not in ("harness", "suites")}
    return tuple(sorted(found.items())), used - sys.stdlib_module_names


def _start(spec: str) -> tuple[Path | None, str]:
    """The folder in which names are looked up, and the dotted name of the SPEC's module in it."""
    where = spec.rpartition(":")[0]
    if where.endswith(".py"):
        file = Path(where).resolve()
        return file.parent, file.stem
    try:
        top = find_spec(where.partition(".")[0])
    except (ImportError, ValueError):
        return None, where
    if top is None or top.origin is None:
        return None, where
    file = Path(top.origin)
    return (file.parent.parent if file.name == "__init__.py" else file.parent), where


def _file(root: Path, name: str) -> Path | None:
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _imports(source: bytes, name: str, is_package: bool) -> tuple[str, ...]:
    """Dotted names that may be modules, of the module of that name."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # which is for the examination to tell
        return ()
    return tuple(_named(tree, name.split(".") if is_package else name.split(".")[:-1]))


def _named(tree: ast.Module, package: list[str]) -> Iterator[str]:
    """`from a import b` gives both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (word for word in (base, *(f"{base}.{alias.name}" for alias in node.names)) if word.strip("."))
