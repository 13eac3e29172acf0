"""Shapes are checked while the tests run: every call in the modules below is held to its jaxtyping annotations.

The hook has to be there before these modules are first imported, hence here, in the first conftest that is read.
Modules that call foreign models, or import no torch, are left as users run them: what a model returns is for the checks
to judge.

And everything runs on one thread: the tensors are small, several threads would only wait for one another, and sums come
out the same everywhere.
"""

import random
from unittest.mock import patch

import pytest
import torch
from jaxtyping import install_import_hook

CHECKED = (
    *("harness.chart", "harness.profile", "harness.reference", "harness.features", "harness.moves"),
    *("harness.statistics", "harness.numerics"),
    *("harness.checks.bridge", "harness.checks.kernel", "harness.checks.masses"),
)
"""Modules, or packages with all in them."""

# beartype looks at one random item of a list. It keeps the function that it finds here when it is imported, so that the
# global generator, which some checks watch, is not drawn from.
with patch.object(random, "getrandbits", random.Random(0).getrandbits):
    from beartype import beartype  # noqa: F401

# An int will do where a float is asked for, as for a type checker.
install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def distributions_validate():
    """As torch comes. A library that another test imports (zuko) switches this off for the whole process."""
    torch.distributions.Distribution.set_default_validate_args(True)
