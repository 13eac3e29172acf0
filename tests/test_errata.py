"""Errata of the documents: each wrong formula is found by its check, its right neighbour passes, none is forgotten."""

from __future__ import annotations

from collections import Counter

import pytest

from engine import changed, examined, record
from harness import mutants, selftest
from harness.evidence import Verdict
from harness.mutants import errata

FORMULAS = {f"E{i:02}" for i in range(1, 32)}
"""The errata, each of which a model could implement."""

ELSEWHERE = {"E03", "E04", "E05", "E19"}
"""About fits, and tried with the other estimators in `harness.mutants.estimation`."""


def named(change):
    return f"{change.erratum}-{change.check}-{change.name}"


@pytest.mark.parametrize("mutant", errata.MUTANTS, ids=named)
def test_the_documents_version_is_found(mutant):
    """By the check of that name, once those before it have had their say."""
    seen = examined(changed(mutant), mutant.check)[mutant.check]
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", errata.NEAR_MISSES, ids=named)
def test_its_right_neighbour_passes(near):
    seen = record(changed(near), near.check)
    assert seen.verdict is Verdict.PASS, seen.message


@pytest.mark.parametrize("mutant", {(m.base, m.check): m for m in errata.MUTANTS}.values(), ids=named)
def test_the_law_that_an_erratum_is_planted_in_is_right(mutant):
    """Else the check would find something else. SKIP where only the mutant has the method."""
    seen = record(mutant.base(), mutant.check)
    assert seen.verdict in (Verdict.PASS, Verdict.SKIP), seen.message


def test_every_erratum_that_is_a_formula_is_a_mutant_of_the_self_test():
    tried = Counter(case.erratum for case in selftest.cases() if case.group == "mutant" and case.erratum)
    assert set(tried) == FORMULAS


def test_every_erratum_tried_here_has_a_near_miss():
    assert {near.erratum for near in errata.NEAR_MISSES} == FORMULAS - ELSEWHERE
    assert {mutant.erratum for mutant in errata.MUTANTS} == FORMULAS - ELSEWHERE


@pytest.mark.parametrize("erratum", sorted(FORMULAS))
def test_the_documentation_lists_the_erratum(erratum):
    assert f"\n{erratum} " in errata.__doc__


@pytest.mark.parametrize("erratum", ["E02", "E12", "E04"])
def test_a_number_selects_the_mutants_and_near_misses_of_an_erratum(erratum):
    chosen = {(case.group, case.mutant, case.law) for case in selftest.selected([erratum])}
    planted = {("mutant", m.name, m.check) for m in mutants.MUTANTS if m.erratum == erratum}
    assert planted
    assert chosen == planted | {("near miss", m.name, m.check) for m in mutants.NEAR_MISSES if m.erratum == erratum}


def test_a_number_that_no_mutant_has_is_refused_with_those_that_some_have():
    with pytest.raises(ValueError, match=r"'E32'.*E02.*E31"):
        selftest.selected(["E32"])


def test_rows_carry_the_number():
    (case,) = selftest.selected(["E02+mutant"])
    row = selftest.row_of(case, [selftest.run_case(case, 0)])
    assert (row.erratum, row.check, row.found) == ("E02", "density.integrates_to_one", 1)
