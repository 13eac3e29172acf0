"""The page as a file: whole, without anything from outside, and with no markup but ours. No browser is needed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from harness import Effort, Report, check_model
from harness.evidence import Estimated, Exact, Look, Raised, Record
from harness.html import matrix_rows, render, safe_json, write_html
from harness.judge import explain, judge
from harness.run import Settings

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
ALPHA = 1e-7


def made(model: str, check: str, seen) -> Record:
    verdict = judge(seen, ALPHA)
    return Record(model, check, verdict, seen, ALPHA, 0.01, explain(seen, verdict, ALPHA))


SEEN = Estimated(tuple(Look(2**k, 0.2, 0.1, 0.3, 2.0 * (k - 10)) for k in range(11, 21)), 0.05, 0.999, "probability")
RECORDS = (
    made("Normal", "plot.error", Exact(3e-9, 1e-7, 40, "x = 1", "nat", 1e-9)),
    made("shifted", "plot.crossing", SEEN),
    made("shifted", "plot.error", Exact(2.0, 1.0, 3)),
    made(HOSTILE, "plot.error", Exact(2.0, 1.0, 3, where=HOSTILE)),
    made(HOSTILE, "plot.raised", Raised(HOSTILE, HOSTILE, HOSTILE + "\u2028</script><script>alert(3)</script>")),
    made("a/b::c #%41 é\ud800\x00", "plot.error", Exact(0.0, 1.0, 3)),
)


@pytest.fixture(scope="module")
def report() -> Report:
    settings = Settings(Effort("quick", draws=1000, tolerance=0.05))
    return Report.of(RECORDS, settings, alpha=1e-6, expected_failures={"no.check": HOSTILE})


def embedded(page: str) -> dict:
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


def test_the_page_refers_to_nothing_outside(report: Report):
    page = render(report)
    for reference in ('src="', "@import", "url(", "<iframe", "<object"):
        assert reference not in page.replace(HOSTILE, "")
    assert "default-src 'none'" in page
    page.encode("utf-8")


def test_the_embedded_data_cannot_leave_its_element():
    text = safe_json({"x": "</script><!-- & \u2028 \ud800"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"x": "</script><!-- & \u2028 \ud800"}


def test_the_page_has_one_script_and_no_markup_of_a_model(report: Report):
    page = render(report)
    assert page.count("<script") == 2  # the data and the program
    assert page.count("</script>") == 2
    assert "<img" not in page


def test_nothing_is_not_a_page():
    with pytest.raises(ValueError, match="no report to show"):
        render([])


def test_a_model_that_comes_again_gets_a_row_of_its_own(report: Report):
    names = [row.name for row in matrix_rows([report, report])]
    assert len(names) == len(set(names)) == 2 * len(report.models)
    assert "Normal (run 2)" in names
    twice = replace(report, records=(*report.records, report.records[0]))
    assert "Normal (run 1)" in [row.name for row in matrix_rows([twice])]


def test_every_record_is_in_the_page(report: Report):
    rows = embedded(render([report, report]))["rows"]
    assert sum(len(row["records"]) for row in rows) == 2 * len(report.records)


def test_a_hundred_models_by_forty_checks_stay_below_five_megabytes(report: Report):
    real = check_model(torch.distributions.Normal(0.0, 1.0), effort="quick").records
    many = tuple(
        replace(real[k % len(real)], model=f"model {i}", check=f"family.check_{k}")
        for i in range(100)
        for k in range(40)
    )
    assert len(render(replace(report, records=many)).encode()) < 5e6


def test_the_page_is_written_whole(report: Report, tmp_path):
    write_html([report], tmp_path / "p.html")
    assert (tmp_path / "p.html").read_text(encoding="utf-8") == render(report)
    with pytest.raises(OSError, match="does not exist; create it"):
        write_html(report, tmp_path / "no" / "p.html")


def test_of_a_single_model_every_check_is_a_line_with_what_it_says(report: Report):
    one = replace(report, records=tuple(r for r in report.records if r.model == HOSTILE))
    body = render(one).partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr") == len(one.records)
    assert body.count('scope="row"') == body.count("<p>") == len(one.records)
    assert "<script" not in body  # messages are escaped as names are
    several = render(report).partition("<tbody>")[2].partition("</tbody>")[0]
    assert several.count("<tr") == len(report.models)
    assert "<p>" not in several
