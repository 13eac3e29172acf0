"""Conformance and benchmarks for generative models: does a model obey the laws of probability, and how sure are we?

The names below are imported at first use, so that `import harness` costs no import of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.adapters import NotAModel, adapt
    from harness.effort import Effort
    from harness.evidence import Verdict
    from harness.examine import check_model
    from harness.pytest_plugin import parametrize_with_checks
    from harness.report import Report

_HOMES = {
    "check_model": "harness.examine",
    "parametrize_with_checks": "harness.pytest_plugin",
    "Report": "harness.report",
    "Effort": "harness.effort",
    "Verdict": "harness.evidence",
    "adapt": "harness.adapters",
    "NotAModel": "harness.adapters",
}

CONTRACT_VERSION = "1.0"
"""Of what a model may promise: `harness/contract.py`."""

__all__ = ["Effort", "NotAModel", "Report", "Verdict", "adapt", "check_model", "parametrize_with_checks"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
