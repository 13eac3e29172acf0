"""What a check learns from draws is in its statistic, and nowhere else: started again, it sees what it saw before.

A subject is shared by all checks of a run and by the search for the fewest failing draws, so nothing that depends on
the draws may be kept in it.
"""

from __future__ import annotations

import pytest
import torch

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.checks.law import NotApplicable, StatisticalCheck
from harness.draws import Draws
from harness.effort import EFFORTS
from harness.evidence import Look
from harness.subject import Subject

MODELS = {
    "continuous": lambda: torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "discrete": lambda: torch.distributions.Binomial(5, torch.tensor(0.3)),
}
STATISTICAL = [check for check in CHECKS if isinstance(check, StatisticalCheck)]


@pytest.fixture(scope="module", params=MODELS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(adapt(MODELS[request.param]()), EFFORTS["quick"], 0)


def looks(check: StatisticalCheck, subject: Subject) -> list[Look]:
    """After each of three chunks, by a statistic of its own."""
    statistic, seen = check.start(subject), []
    for index in range(3):
        statistic.update(check.numbers(Draws(subject, index, 512)))
        seen.append(statistic.look(0.999))
    return seen


def test_a_statistic_that_is_started_again_sees_the_same(subject: Subject):
    compared = []
    asked = [check for check in STATISTICAL if subject.model.can(*check.needs)]
    for check in asked:
        try:
            first, again = looks(check, subject), looks(check, subject)
        except NotApplicable:
            continue
        assert first == again, check.id
        compared.append(check.id)
    assert "sampler.adversary" in compared
    assert len(compared) > len(asked) / 2


def test_what_the_adversary_learns_changes_how_it_judges():
    (adversary,) = (check for check in STATISTICAL if check.id == "sampler.adversary")
    subject = Subject(adapt(MODELS["continuous"]()), EFFORTS["quick"], 0)
    chunks = [adversary.numbers(Draws(subject, index, 512)) for index in range(2)]
    taught, fresh = adversary.start(subject), adversary.start(subject)
    taught.update(chunks[0])
    before = taught.total
    for statistic in (taught, fresh):
        statistic.update(chunks[1])
    assert taught.total - before != fresh.total
