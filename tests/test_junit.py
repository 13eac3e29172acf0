"""JUnit XML says what the verdicts say, and stays XML whatever a model is called."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from harness import Effort, Report, Verdict
from harness.evidence import Absent, Estimated, Exact, Look, Raised, Record, Reproducer
from harness.junit import junit_xml, write_junit
from harness.run import Settings

SEEN = {
    Verdict.PASS: Exact(0.0, 1.0, 3),
    Verdict.FAIL: Exact(2.0, 1.0, 3),
    Verdict.INCONCLUSIVE: Estimated((Look(100, 0.0, -0.4, 0.4, 0.0),), 0.05, 0.999, "probability"),
    Verdict.SKIP: Absent("the model has no log_prob"),
    Verdict.ERROR: Raised("RuntimeError", "boom", "Traceback: here"),
}
HOSTILE = '<m a="1">&\x00\x1b[2J\ud800\uffff]]>'


def report(*records: Record, expected: dict[str, str] | None = None) -> Report:
    settings = Settings(Effort("quick", draws=1000, tolerance=0.05), seed=7)
    return Report.of(records, settings, alpha=1e-6, expected_failures=expected)


def record(verdict: Verdict, model: str = "m", check: str = "a.b", message: str = "what was seen") -> Record:
    reproducer = Reproducer("harness check m --only a.b", "print(1 < 2)", 64) if verdict is Verdict.FAIL else None
    return Record(model, check, verdict, SEEN[verdict], 1e-7, 0.25, message, reproducer=reproducer)


def parsed(made: Report, *, strict: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(junit_xml(made, strict=strict))


def outcome(made: Report, *, strict: bool = False) -> ElementTree.Element | None:
    """The child of the only testcase that says how it ended."""
    (case,) = parsed(made, strict=strict).iter("testcase")
    return next((child for child in case if child.tag != "system-out"), None)


@pytest.mark.parametrize(
    ("verdict", "tag", "strict_tag"),
    [
        (Verdict.PASS, None, None),
        (Verdict.FAIL, "failure", "failure"),
        (Verdict.ERROR, "error", "error"),
        (Verdict.SKIP, "skipped", "skipped"),
        (Verdict.INCONCLUSIVE, "skipped", "failure"),
    ],
)
def test_each_verdict_has_its_element(verdict, tag, strict_tag):
    for strict, expected in ((False, tag), (True, strict_tag)):
        seen = outcome(report(record(verdict)), strict=strict)
        assert (None if seen is None else seen.tag) == expected
        if seen is not None:
            assert "what was seen" in seen.get("message")


def test_a_failure_carries_its_reproducer_and_an_error_its_trace():
    assert "harness check m --only a.b" in outcome(report(record(Verdict.FAIL))).text
    assert "print(1 < 2)" in outcome(report(record(Verdict.FAIL))).text
    assert outcome(report(record(Verdict.ERROR))).text == "Traceback: here"


def test_a_met_expectation_is_skipped_with_its_reason():
    seen = outcome(report(record(Verdict.FAIL), expected={"a.b": "known"}))
    assert (seen.tag, seen.get("message")) == ("skipped", "expected failure: known")


def test_an_unmet_or_unmatched_expectation_is_a_failure():
    unmet = parsed(report(record(Verdict.PASS), expected={"a.b": "known"}))
    assert unmet.get("failures") == "1"
    unmatched = parsed(report(record(Verdict.PASS), expected={"no.check": "known"}))
    assert unmatched.get("failures") == "1"
    assert [case.get("name") for case in unmatched.iter("testcase")] == ["a.b", "no.check"]


def test_there_is_a_suite_a_model_and_the_counts_add_up():
    records = [record(verdict, model, f"a.{verdict}") for model in ("m", "n") for verdict in Verdict]
    root = parsed(report(*records))
    assert [suite.get("name") for suite in root] == ["m", "n"]
    for suite in root:
        counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped", "time")}
        assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "2", "time": "1.250"}
        facts = {item.get("name"): item.get("value") for item in suite.iter("property")}
        assert (facts["seed"], facts["effort"]) == ("7", "quick")
    assert root.get("tests") == "10"


@pytest.mark.parametrize("verdict", list(Verdict))
def test_hostile_text_stays_text(verdict):
    made = report(record(verdict, HOSTILE, HOSTILE, HOSTILE), expected={HOSTILE: HOSTILE})
    (suite, *_) = parsed(made)
    assert suite.get("name") == '<m a="1">&[2J]]>'


def test_the_file_is_written_whole(tmp_path):
    write_junit(report(record(Verdict.PASS)), tmp_path / "j.xml", strict=True)
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("tests") == "1"
    with pytest.raises(OSError, match="does not exist; create it"):
        write_junit(report(record(Verdict.PASS)), tmp_path / "no" / "j.xml")
