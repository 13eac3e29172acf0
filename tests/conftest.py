"""Shapes are checked while the tests run: every call in the modules below is held to its jaxtyping annotations.

The hook has to be there before these modules are first imported, hence here, in the first conftest that is read. Modules
that call foreign models, or import no torch, are left as users run them: what a model returns is for the checks to judge.
"""

import torch
from jaxtyping import install_import_hook

CHECKED = (
    *("harness.chart", "harness.profile", "harness.reference", "harness.features", "harness.moves"),
    *("harness.statistics", "harness.numerics"),
    *("harness.checks.bridge", "harness.checks.kernel", "harness.checks.masses"),
)
"""Modules, or packages with all in them."""

# An int will do where a float is asked for, as for a type checker.
torch.set_num_threads(1)  # two threads on two busy cores take a hundred times as long
install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
