"""What is stored of the defects found in libraries is whole, follows from its evidence, and is what the page tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.evidence import Verdict
from harness.judge import judge
from harness.report import Report
from harness.store import read
from suites import findings

RESULTS = Path(__file__).parents[2] / "results"
DEFECTS = (Verdict.FAIL, Verdict.ERROR)


@pytest.fixture(scope="module")
def report() -> Report:
    return read(RESULTS / "findings.json")


def told(page: str) -> list[tuple[Verdict, str]]:
    """The verdict and the check of everything that the second column of the page's table names."""
    rows = [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| `")]
    assert rows
    assert all(row.startswith(("FAIL ", "ERROR ")) for row in rows)
    return [(Verdict(row.split()[0]), check) for row in rows for check in re.findall(r"[a-z_]+\.[a-z_]+", row)]


def test_the_models_are_those_that_were_examined(report: Report) -> None:
    assert report.instances == tuple(findings.all)


def test_a_defect_was_found_in_each(report: Report) -> None:
    assert {record.model for record in report.records if record.verdict in DEFECTS} == set(findings.all)


def test_verdicts_follow_from_the_evidence(report: Report) -> None:
    assert [r.check for r in report.records if judge(r.evidence, r.alpha) is not r.verdict] == []


def test_what_the_page_tells_was_found(report: Report) -> None:
    page = (RESULTS / "findings.md").read_text(encoding="utf-8")
    assert set(told(page)) <= {(record.verdict, record.check) for record in report.records}


def test_each_check_of_a_row_is_read() -> None:
    page = "| `a` | FAIL density.bridge_mass, sample.finite, ... | x | y |\n| `b` | ERROR sample.well_formed | x | y |"
    assert told(page) == [
        (Verdict.FAIL, "density.bridge_mass"),
        (Verdict.FAIL, "sample.finite"),
        (Verdict.ERROR, "sample.well_formed"),
    ]
