"""Nothing downstream is imported by anything upstream: the imports of `harness` are read and held to their order."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "harness",
        "harness.contract",
        "harness.evidence",
        "harness.streams",
        "harness.ambient",
        "harness.effort",
        "harness.errors",
    ),
    ("harness.statistics", "harness.numerics", "harness.judge"),
    ("harness.model", "harness.unnormalised", "harness.adapters"),
    (
        *("harness.chart", "harness.profile", "harness.reference", "harness.subject", "harness.draws"),
        *("harness.features", "harness.moves", "harness.space", "harness.states", "harness.scout", "harness.cells"),
        *("harness.event", "harness.peaks"),
    ),
    ("harness.checks",),
    ("harness.plan",),
    ("harness.run",),
    ("harness.mutants",),
)
"""From upstream to downstream: a module may import its own layer and those before. Every module that is not listed is a
face, in a layer after all of these."""

FORBIDDEN = {
    "harness": ("reference_impls", "suites"),
    "harness.statistics": ("torch.distributions", "harness.model", "harness.adapters", "harness.contract"),
    "harness.numerics": ("torch.distributions", "harness.model", "harness.adapters", "harness.contract"),
    "harness.adapters": ("harness.checks",),
    "harness.evidence": ("torch",),
    "harness.judge": ("torch",),
    "reference_impls": ("harness", "suites"),
}
"""What a package, and all in it, must not import anywhere, be it inside a function."""


@dataclass(frozen=True)
class Import:
    """`module` imports `target` at a line; `at_start` when the import is made as soon as the module is."""

    module: str
    target: str
    line: int
    at_start: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.target}"


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str, modules: frozenset[str]) -> Iterator[Import]:
    """Every import of a module but those that only a type checker follows."""
    for node, at_start in _read(ast.parse(source), at_start=True):
        for target in _targets(node, modules):
            yield Import(module, target, node.lineno, at_start)


def _read(node: ast.AST, *, at_start: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Import statements, and whether they are made as soon as the module is."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, at_start
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in node.orelse if _types_only(node) else ast.iter_child_nodes(node):
        yield from _read(child, at_start=at_start and not later)


def _types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _targets(node: ast.AST, modules: frozenset[str]) -> list[str]:
    """`from a import b` is an import of a.b where that is a module, else of a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they go"
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        return [full if full in modules else str(node.module) for full in whole]
    return []


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer(module: str) -> int:
    """The place of the longest listed prefix; faces come last. `harness` itself is only its `__init__`."""
    listed = {name: i for i, names in enumerate(LAYERS) for name in names}
    if module == "harness":
        return listed[module]
    found = [name for name in listed if name != "harness" and within(module, name)]
    return listed[max(found, key=len)] if found else len(LAYERS)


def violations(imports: list[Import]) -> list[str]:
    """Imports against the order, and forbidden ones."""
    wrong = [
        f"{each}: downstream of it"
        for each in imports
        if within(each.target, "harness") and within(each.module, "harness") and layer(each.target) > layer(each.module)
    ]
    forbidden = [
        f"{each}: forbidden"
        for each in imports
        for package, targets in FORBIDDEN.items()
        if within(each.module, package) and any(within(each.target, target) for target in targets)
    ]
    return sorted(set(wrong + forbidden))


def cycle(imports: list[Import]) -> list[str]:
    """Modules that import one another when they are loaded, in a ring; empty when there is none."""
    graph: dict[str, set[str]] = {}
    for each in imports:
        if each.at_start and each.target != each.module:
            graph.setdefault(each.module, set()).add(each.target)
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if ring := walk(target, [*path, module]):
                return ring
        done.add(module)
        return []

    return next((ring for module in sorted(graph) if (ring := walk(module, []))), [])


def sources(*packages: str) -> dict[str, str]:
    return {
        module_name(path, ROOT): path.read_text(encoding="utf-8")
        for package in packages
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def read(texts: dict[str, str]) -> list[Import]:
    modules = frozenset(texts)
    return [each for module, text in texts.items() for each in imports_of(text, module, modules)]


TEXTS = sources("harness", "reference_impls")
IMPORTS = read(TEXTS)


def read_alone(module: str, text: str) -> list[Import]:
    return list(imports_of(text, module, frozenset(TEXTS)))


def test_the_sources_were_found():
    assert {"harness.contract", "harness.statistics.bernstein", "harness.checks.law", "harness.run"} <= set(TEXTS)
    assert any(within(module, "reference_impls") for module in TEXTS)


def test_every_listed_module_exists():
    assert [name for names in LAYERS for name in names if name not in TEXTS] == []


def test_imports_keep_the_order():
    without_lazy_root = [each for each in IMPORTS if each.module != "harness"]  # whose names are imported on demand
    assert violations(without_lazy_root) == []


def test_no_module_imports_itself_in_a_ring():
    assert cycle(IMPORTS) == []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("harness.statistics.bernstein", "from harness.model import Model"),
        ("harness.statistics.bernstein", "def f():\n    from torch.distributions import Normal"),
        ("harness.numerics.quadrature", "import torch.distributions"),
        ("harness.adapters.protocol", "from harness.checks.law import Check"),
        ("harness.judge", "import harness.run"),
        ("harness.contract", "from harness import evidence, checks"),
        ("harness.run", "def f():\n    from harness.report import Report"),
        ("harness.run", "from reference_impls import gaussian"),
        ("harness.report", "def f():\n    import suites.data"),
        ("reference_impls.gaussian", "from harness.streams import generator"),
        ("harness.checks.surface", "from harness.plan import plan"),
    ],
)
def test_a_planted_import_is_caught(module: str, planted: str):
    assert violations(read_alone(module, f"{TEXTS[module]}\n{planted}\n")) != []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("harness.statistics.bernstein", "if TYPE_CHECKING:\n    from harness.model import Model"),
        ("harness.checks.surface", "from harness.statistics.binomial import interval"),
        ("harness.report", "from harness.run import Settings"),
    ],
)
def test_an_allowed_import_is_not(module: str, planted: str):
    assert violations(read_alone(module, planted)) == []


def test_a_planted_ring_is_caught():
    ring = {"a": "import b", "b": "from c import x", "c": "import a"}
    assert cycle(read(ring)) == ["a", "b", "c", "a"]
    assert cycle(read({**ring, "c": "def f():\n    import a"})) == []
