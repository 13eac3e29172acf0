"""Report to JUnit XML, which continuous-integration services show: a testsuite an instance of a model, a testcase a
check.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from harness.evidence import Raised, Record, Verdict
from harness.report import Report
from harness.store import write_text

EXPECTATIONS = "expected failures"
"""Name of the testsuite of declared failures that match nothing."""


def write_junit(report: Report, path: str | Path, *, strict: bool = False) -> None:
    """Write the XML whole or not at all; OSError with one line that names the fix."""
    write_text(path, junit_xml(report, strict=strict))


def junit_xml(report: Report, *, strict: bool = False) -> str:
    """FAIL is a failure, ERROR an error, SKIP skipped, INCONCLUSIVE skipped or, under `strict`, a failure.

    An expected failure that is met is skipped with its reason; one that is not met is a failure.
    """
    root = Element("testsuites", name="harness")
    for instance in report.instances:
        own = [record for record in report.records if record.instance == instance]
        suite = SubElement(root, "testsuite", name=xml_text(instance), timestamp=report.run.started.partition("+")[0])
        _facts(suite, report, own[0])
        for record in own:
            _case(suite, record, strict)
    if report.unmatched:
        suite = SubElement(root, "testsuite", name=EXPECTATIONS)
        for key, reason in report.unmatched.items():
            case = SubElement(suite, "testcase", classname=EXPECTATIONS, name=xml_text(key), time="0.000")
            _outcome(case, "failure", "unmatched", f"expected to fail ({reason}), but matches no check that was made")
    _count(root)
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _facts(suite: Element, report: Report, record: Record) -> None:
    run = report.run
    facts = {
        "seed": run.seed if record.seed is None else record.seed,
        "effort": run.effort.name,
        "device": record.device or run.device,
        "dtype": run.dtype,
        "alpha": run.alpha,
        "contract": run.contract,
        "command": run.command,
        **{f"version.{name}": version for name, version in run.versions.items()},
    }
    properties = SubElement(suite, "properties")
    for name, value in facts.items():
        SubElement(properties, "property", name=name, value=xml_text(str(value)))


def _case(suite: Element, record: Record, strict: bool) -> None:
    """One check on one model."""
    case = SubElement(
        suite, "testcase", classname=xml_text(record.instance), name=xml_text(record.check), time=f"{_time(record):.3f}"
    )
    label = f" [{record.label}]" if record.label else ""
    message = record.message + label
    trace = record.evidence.trace if isinstance(record.evidence, Raised) else ""
    if record.expected and record.verdict is Verdict.FAIL:
        _outcome(case, "skipped", "expected failure", f"expected failure: {record.expected}", message)
    elif record.expected:
        stale = f"expected to fail ({record.expected}), but is {record.verdict}: {message}"
        _outcome(case, "failure", "unmet expectation", stale, trace)
    elif record.verdict is Verdict.FAIL:
        _outcome(case, "failure", record.verdict, message, _reproducer(record))
    elif record.verdict is Verdict.ERROR:
        kind = record.evidence.kind if isinstance(record.evidence, Raised) else record.verdict
        _outcome(case, "error", kind, message, trace)
    elif record.verdict is Verdict.INCONCLUSIVE:
        _outcome(case, "failure" if strict else "skipped", record.verdict, f"INCONCLUSIVE: {message}")
    elif record.verdict is Verdict.SKIP:
        _outcome(case, "skipped", record.verdict, message)
    else:
        SubElement(case, "system-out").text = xml_text(message)


def _outcome(case: Element, tag: str, kind: str, message: str, detail: str = "") -> None:
    outcome = SubElement(case, tag, type=xml_text(kind), message=xml_text(message))
    outcome.text = xml_text(detail) or None


def _reproducer(record: Record) -> str:
    if record.reproducer is None:
        return record.message
    return f"{record.message}\n\nReproduce with\n  {record.reproducer.command}\n\n{record.reproducer.script}"


def _time(record: Record) -> float:
    return record.seconds if math.isfinite(record.seconds) else 0.0


def _count(root: Element) -> None:
    """Totals of each suite and of all."""
    for element in (*root.findall("testsuite"), root):
        cases = list(element.iter("testcase"))
        element.set("tests", str(len(cases)))
        for tag, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            element.set(plural, str(sum(case.find(tag) is not None for case in cases)))
        element.set("time", f"{sum(float(case.get('time', 0)) for case in cases):.3f}")


def xml_text(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold, escaped or not."""
    return "".join(
        c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"
    )
