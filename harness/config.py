"""`[tool.harness]` in pyproject.toml: what `harness check` examines when no SPEC is given."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import CallError
from harness.resolve import close_to

FILE = "pyproject.toml"
EXAMPLE = '[tool.harness] with models = ["package.module:attr"]'
TYPES: dict[str, tuple[type, ...]] = {
    "models": (list,),
    "effort": (str,),
    "seed": (int, list),
    "device": (str, list),
    "dtype": (str,),
    "only": (list,),
    "strict": (bool,),
    "budget": (int, float),
    "timeout": (int, float),
    "memory": (int, float),
    "alpha": (int, float),
    "workers": (int,),
    "scheduler": (str,),
    "expected_failures": (dict,),
}
"""Every key of the table and the types that it may have. All but `models` and `expected_failures` are options of
`harness check`, which win over the file."""


class ConfigError(CallError):
    """The table cannot be used; the message is one line that names the fix."""


@dataclass(frozen=True)
class Config:
    """The table, checked: SPECs, options by name, and reasons by "check.id" or "model::check.id"."""

    models: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    expected_failures: Mapping[str, str] = field(default_factory=dict)


def load(path: Path) -> Config:
    """The table in the file. Raises ConfigError."""
    table = _table(path)
    for key, value in table.items():
        if key not in TYPES:
            raise ConfigError(f"{path}: tool.harness has no key {key!r}{close_to(key, TYPES, otherwise=_known())}")
        if not isinstance(value, TYPES[key]) or (isinstance(value, bool) and bool not in TYPES[key]):
            wanted = " or ".join(kind.__name__ for kind in TYPES[key])
            raise ConfigError(f"{path}: tool.harness.{key} is {value!r}, not of type {wanted}")
    for key in ("models", "only"):
        strange = [item for item in table.get(key, []) if not isinstance(item, str)]
        if strange:
            raise ConfigError(f"{path}: tool.harness.{key} holds {strange[0]!r}, not a string")
    if not table.get("models"):
        raise ConfigError(f"{path}: tool.harness.models is empty; give a SPEC, or write {EXAMPLE}")
    options = {key: value for key, value in table.items() if key not in ("models", "expected_failures")}
    return Config(tuple(table["models"]), options, _expected(table.get("expected_failures", {}), path))


def _table(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"no model is named and there is no {path}: give a SPEC, or write {EXAMPLE}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}; correct it, or give a SPEC") from None
    tool = document.get("tool")
    table = tool.get("harness") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise ConfigError(f"no model is named and {path} has no table [tool.harness]: give a SPEC, or write {EXAMPLE}")
    return table


def _expected(table: Mapping[str, Any], path: Path) -> dict[str, str]:
    """{id: reason} for every model, or {model: {id: reason}}, as one mapping with keys "id" or "model::id"."""
    found: dict[str, str] = {}
    for key, value in table.items():
        inner = {f"{key}::{id}": reason for id, reason in value.items()} if isinstance(value, dict) else {key: value}
        for name, reason in inner.items():
            if not (isinstance(reason, str) and reason.strip()):
                raise ConfigError(f"{path}: expected failure {name!r} has no reason: say why it fails, as a string")
            found[name] = reason
    return found


def _known() -> str:
    return f"; it may have {', '.join(TYPES)}"
