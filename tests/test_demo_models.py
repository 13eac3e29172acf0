"""Every model of `make demo` is one that the harness knows, under a name that no other model has."""

import pytest

from harness.adapters import adapt
from harness.resolve import resolve
from suites import demo, demo_models


@pytest.mark.parametrize("attr", demo.LISTS)
def test_every_model_of_the_demo_can_be_built_and_sampled_or_evaluated(attr):
    for named in resolve(f"suites.demo_models:{attr}"):
        model = adapt(named.build(), named.name)
        assert model.can("sample", "log_prob"), named.spec


def test_names_are_distinct_and_the_broken_model_says_so():
    names = [named.name for attr in demo.LISTS for named in resolve(f"suites.demo_models:{attr}")]
    assert len(set(names)) == len(names)
    assert all("BROKEN ON PURPOSE" in name for name in demo_models.broken)
    assert len(demo_models.torch_distributions) >= 12
