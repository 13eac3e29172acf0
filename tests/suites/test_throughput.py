"""Models a minute, against workers: the rows, and that all ways find the same."""

import pytest

from harness.processes import Processes
from suites import throughput


def test_a_row_says_what_was_done_and_whether_the_records_agree():
    listed = throughput.models(2)
    assert [model.name for model in listed] == ["gaussian.correlated #0", "mixture.three_modes #1"]
    seconds, found = throughput.measured(Processes(workers=2), listed[:1])
    row = throughput._row("--workers", 2, 1, seconds, same=True)
    assert row["models_per_minute"] == pytest.approx(60 / seconds)
    assert {model for model, *_ in found} == {"gaussian.correlated #0"}


def test_the_numbers_of_workers_end_with_all_processors(monkeypatch):
    for processors, numbers in ((1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])):
        monkeypatch.setattr(throughput, "processors", lambda processors=processors: processors)
        assert throughput._numbers() == numbers


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_run(capsys):
    with pytest.raises(SystemExit) as refused:
        throughput.main(["--json", "no/such/folder/workers.json"])
    assert refused.value.code == 2
    assert "cannot write" in capsys.readouterr().err
