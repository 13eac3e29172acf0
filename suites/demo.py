"""`make demo`: examine real models as `harness check` does, with one among them that is broken on purpose.

Writes results/demo.json and results/demo.html, and leaves with 0 when exactly the broken model fails.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.commands import Call, run

LISTS = ("references", "torch_distributions", "scipy_distributions", "sklearn_densities", "broken")
RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> int:
    """Run the demo; its exit status."""
    from suites.demo_models import broken

    RESULTS.mkdir(exist_ok=True)
    call = Call(
        specs=tuple(f"suites.demo_models:{name}" for name in LISTS),
        workers=min(4, os.cpu_count() or 1),
        json=RESULTS / "demo.json",
        html=RESULTS / "demo.html",
    )
    status, report = run(call, {})
    if status == 130:
        return status
    failing = {record.model for record in (*report.failures, *report.errors)}
    if failing == set(broken):
        print("As it should be: the model that is broken on purpose fails, every other one passes.")
        return 0
    missed, wrong = set(broken) - failing, failing - set(broken)
    if missed:
        print(f"Not found: {', '.join(sorted(missed))}")
    if wrong:
        print(f"Failed beside the broken one: {', '.join(sorted(wrong))}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
