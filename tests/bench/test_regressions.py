"""`harness regressions` on histories as asv writes them: quiet, with planted steps, of two environments, damaged."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from asv_history import LEVELS, Written, commit, only
from harness.bench.attribute import judged
from harness.bench.history import Environment, read
from harness.bench.regressions import regressions
from harness.cli import _status

SLOWER = math.log(1.05)
TIME, NLL = "models.Model3.track_time", "models.Model1.track_nll"


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Path:
    return Written(tmp_path_factory.mktemp("quiet")).write()


@pytest.fixture
def history(quiet, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(quiet, tmp_path / "history"))


def said(folder: Path) -> list[tuple[str, str, str]]:
    return sorted((f.series.partition("(")[0], f.commit, f.cause) for f in judged(read(folder)).regressions)


def edited(file: Path, change) -> None:
    told = json.loads(file.read_text())
    change(told)
    file.write_text(json.dumps(told))


def run_of(folder: Path, i: int, environment: str = "existing") -> Path:
    return folder / "runner" / f"{commit(i)[:8]}-{environment}.json"


def test_nothing_is_said_where_nothing_happened(quiet, capsys):
    assert regressions(quiet, alpha=0.01) == 0
    assert capsys.readouterr().out.startswith("0 regressions and 0 missing values in 32 series of 16 runs")


@pytest.mark.parametrize(
    ("name", "size"),
    [(TIME, SLOWER), (NLL, 0.01), ("models.Model0.track_memory", SLOWER)],
    ids=["time", "nll", "memory"],
)
@pytest.mark.parametrize("first", [8, 14, 15])
def test_a_planted_step_is_what_is_said(name, size, first, tmp_path, capsys):
    """Both settings of the benchmark, at this commit, of this size; nothing else."""
    folder = Written(tmp_path).write(only(name, first, size))
    assert said(folder) == [(name, commit(first), "code")] * 2
    assert regressions(folder, alpha=0.01) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("WORSE") for line in lines[:3]] == [True, True, False]
    assert commit(first)[:8] in lines[0]


def test_the_size_of_a_step_is_the_one_that_was_planted(tmp_path):
    """Levels of eight points with noise of 0.5 %: a median's error is 1.25 x 0.5 % / sqrt(8) on both sides, 0.3 %."""
    (found, _) = judged(read(Written(tmp_path).write(only(TIME, 8, SLOWER)))).regressions
    assert found.size == pytest.approx(SLOWER, abs=6 * 0.003)


def test_a_copy_whose_results_alone_are_scaled_is_seen_through_its_samples(tmp_path):
    """Samples are better than their median, but only where they belong to it."""
    folder = Written(tmp_path).write()
    for i in range(16):

        def add(told, i=i):
            row = told["results"][TIME]
            row += [None] * 6 + [[[value * f for f in (0.999, 1.0, 1.001)] for value in row[0]]]
            row[0] = [value * (1.05 if i >= 8 else 1.0) for value in row[0]]

        edited(run_of(folder, i), add)
    assert said(folder) == [(TIME, commit(8), "code")] * 2


def test_less_than_a_mebibyte_of_memory_is_no_step(tmp_path):
    """A tenth of 1.2 MB, again and again: the counters of the kernel are not finer."""
    written = Written(tmp_path, levels={**LEVELS, "memory": 1.2e6})
    assert said(written.write(only("models.Model0.track_memory", 8, 0.1))) == []
    assert said(written.write(only("models.Model0.track_memory", 8, 0.7))) != []


def test_a_step_that_was_taken_back_does_not_fail(tmp_path, capsys):
    folder = Written(tmp_path).write(only(NLL, 5, 0.01, 13))
    assert regressions(folder, alpha=0.01) == 0
    assert capsys.readouterr().out.count("worse, taken back") == 2


def test_an_improvement_does_not_fail(tmp_path, capsys):
    assert regressions(Written(tmp_path).write(only(NLL, 8, -0.01)), alpha=0.01) == 0
    assert "better" in capsys.readouterr().out


def test_steps_before_a_commit_are_accepted(tmp_path):
    folder = Written(tmp_path).write(only(NLL, 5, 0.01))
    assert regressions(folder, alpha=0.01, since=commit(5)[:6]) == 1
    assert regressions(folder, alpha=0.01, since=commit(6)[:6]) == 0
    assert _status(["regressions", str(folder), "--since", "ffff"]) == 2


# ---------------------------------------------------------------------------------------- what all series share


def all_slower(first: int, size: float, more: str = "", by: float = 0.0):
    """Every timing, from a commit on; one benchmark by more."""
    return lambda name, i: (i >= first) * (size * ("time" in name) + by * (name == more))


def test_what_all_series_share_may_be_the_machine_and_is_told_but_does_not_fail(tmp_path, capsys):
    folder = Written(tmp_path).write(all_slower(8, 0.15))
    assert regressions(folder, alpha=0.01) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs")]
    assert line.startswith("differs all 16 series time +1")
    assert f"harness bench MODEL --commits {commit(7)[:8]} {commit(8)[:8]}" in line
    assert regressions(folder, alpha=0.01, strict=True) == 1


def test_what_one_benchmark_does_beyond_the_others_is_the_codes(tmp_path):
    folder = Written(tmp_path).write(all_slower(8, 0.15, TIME, SLOWER))
    assert said(folder) == [(TIME, commit(8), "code")] * 2


def test_memory_of_all_series_is_the_codes(tmp_path):
    """No machine makes every process larger."""
    folder = Written(tmp_path).write(lambda name, i: 0.15 * (i >= 8) * ("memory" in name))
    assert said(folder) == [("all 8 series", commit(8), "code")]


# ----------------------------------------------------------------------------------------- what could be missed


def test_a_quiet_verdict_says_what_it_could_have_missed(quiet, capsys, tmp_path):
    """A step as large as is said for the newest run, on one series of middling noise, is found."""
    regressions(quiet, alpha=0.01, json_path=tmp_path / "steps.json")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == [
        f"could have been missed in {metric}" for metric in ("memory", "nll", "time")
    ]
    told = json.loads((tmp_path / "steps.json").read_text())["could_be_missed"]["time"]
    assert told["runs"] == 5
    assert 0.03 < told["newest_runs"]["half"] <= told["newest_run"]["half"] <= told["newest_run"]["noisiest"]
    size = told["newest_run"]["noisiest"]
    assert said(Written(tmp_path / "again").write(only(TIME, 15, size))) == [(TIME, commit(15), "code")] * 2


def test_in_a_short_history_the_newest_run_alone_tells_nothing(tmp_path, capsys):
    folder = Written(tmp_path, commits=8).write(only(TIME, 7, 0.5))
    assert regressions(folder, alpha=0.01) == 0
    assert "anything by the newest run alone, which is judged after 15 others" in capsys.readouterr().out


def test_one_run_is_too_few_and_that_is_said(tmp_path, capsys):
    assert regressions(Written(tmp_path, commits=1).write(), alpha=0.01) == 0
    assert "too few to tell: a timing needs 5 runs" in capsys.readouterr().out


@pytest.mark.parametrize(("commits", "judged_timings"), [(4, 0), (5, 16)])
def test_a_timing_needs_five_runs(commits, judged_timings, tmp_path):
    found = judged(read(Written(tmp_path, commits=commits, kinds={"time": 8}).write()))
    assert found.judged == judged_timings


def test_a_large_step_is_told_as_a_factor(tmp_path, capsys):
    regressions(Written(tmp_path).write(only(TIME, 8, math.log(4))), alpha=0.01)
    assert f"WORSE {TIME}(10) time x 4 (noise allows +" in capsys.readouterr().out.replace("x 3.99", "x 4")


# ------------------------------------------------------------------------------------------ code or environment


def test_commits_measured_in_both_environments_tell_that_it_was_the_environment(tmp_path, capsys):
    written = Written(tmp_path)
    written.write(only=range(10))
    slower = only(TIME, 0, 0.2)
    folder = written.write(slower, environment="new", torch="2.14.0", only=range(7, 16), stream=1)
    assert said(folder) == [(TIME, commit(7), "environment")] * 2
    assert regressions(folder, alpha=0.01) == 1
    assert "torch 2.13.0 -> 2.14.0" in capsys.readouterr().out


def test_a_step_within_the_new_environment_is_the_codes(tmp_path):
    written = Written(tmp_path)
    written.write(only=range(10))
    folder = written.write(only(TIME, 12, 0.2), environment="new", torch="2.14.0", only=range(7, 16), stream=1)
    assert said(folder) == [(TIME, commit(12), "code")] * 2


def test_without_a_common_commit_it_may_be_either_and_the_way_out_is_named(tmp_path, capsys):
    written = Written(tmp_path)
    written.write(only=range(8))
    folder = written.write(only(TIME, 0, 0.2), environment="new", torch="2.14.0", only=range(8, 16), stream=1)
    assert said(folder) == [(TIME, commit(8), "code or environment")] * 2
    regressions(folder, alpha=0.01)
    assert f"measure {commit(7)[:8]} in runner, new to tell them apart" in capsys.readouterr().out


def test_another_machine_may_be_slower_but_not_worse(tmp_path):
    written = Written(tmp_path)
    written.write(only=range(10))
    folder = written.write(
        lambda name, i: 0.5 if "time" in name else 0.0, machine="another", only=range(6, 16), stream=1
    )
    assert said(folder) == []
    assert {f.metric for f in judged(read(folder)).found} == {"time"}
    worse = written.write(only(NLL, 0, 0.02), machine="another", only=range(6, 16), stream=1)
    assert said(worse) == [(NLL, commit(6), "environment")] * 2


def test_what_changed_between_environments_is_told():
    old = Environment("m", "a", (("python", "3.11"), ("torch", "2.9")))
    assert old.changes(Environment("m", "b", (("cuda", "13"), ("torch", "2.13")))) == (
        "cuda none -> 13; python 3.11 -> none; torch 2.9 -> 2.13"
    )


# --------------------------------------------------------------------------------------- values that are missing


@pytest.mark.parametrize(("value", "says"), [(math.nan, "NaN"), (math.inf, "inf"), (None, "no value"), (0.0, "0.0")])
def test_a_value_that_is_lost_fails(value, says, history, capsys):
    def change(told):
        told["results"][NLL][0][1] = value

    edited(run_of(history, 15), change)
    assert regressions(history, alpha=0.01) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert says in line
    assert NLL in line
    assert commit(15)[:8] in line
    assert f"last had a value at {commit(14)[:8]}" in line


def test_what_never_applied_is_no_failure(history):
    def change(told):
        told["results"][NLL][0][1] = math.nan

    for i in range(16):
        edited(run_of(history, i), change)
    assert regressions(history, alpha=0.01) == 0


def test_a_benchmark_that_fails_as_a_whole_fails_in_all_settings(history, capsys):
    def change(told):
        told["results"][NLL][0] = None

    edited(run_of(history, 15), change)
    assert regressions(history, alpha=0.01) == 1
    assert capsys.readouterr().out.count("FAILED") == 2


# ---------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ('{"version": 2, "results": {', "cut off or damaged"),
        ("[1, 2]", "is no object"),
        ('{"version": 1}', "has version 1"),
        ('{"version": 2}', "has no commit_hash"),
        ("\xff\xfe", "damaged"),
    ],
)
def test_a_damaged_file_costs_one_line_and_nothing_else(text, says, history, capsys):
    run_of(history, 4).write_text(text)
    assert regressions(history, alpha=0.01) == 0
    seen = capsys.readouterr()
    assert seen.err.count("\n") == 1
    assert says in seen.err
    assert run_of(history, 4).name in seen.err
    assert regressions(history, alpha=0.01, strict=True) == 1


def test_bytes_that_are_no_text_are_damage_too(history, capsys):
    run_of(history, 4).write_bytes(b"\xff\xfe\x00{")
    assert regressions(history, alpha=0.01) == 0
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "row",
    [[[1.0], [["10", "100"]], "1"], ["fast", [["10", "100"]], "1"], [[1.0, "x"], [["10", "100"]], "1"], 7],
    ids=["too few", "text", "half text", "number"],
)
def test_a_row_of_the_wrong_form_costs_its_file(row, history, capsys):
    def change(told):
        told["results"][NLL] = row

    edited(run_of(history, 4), change)
    assert regressions(history, alpha=0.01) == 0
    assert capsys.readouterr().err.count("\n") == 1


def test_without_benchmarks_json_units_are_told_from_names(tmp_path, capsys):
    folder = Written(tmp_path).write(only(NLL, 8, 0.01))
    (folder / "benchmarks.json").write_text('{"cut')
    assert said(folder) == [(NLL, commit(8), "code")] * 2
    regressions(folder, alpha=0.01)
    assert "units are told from names" in capsys.readouterr().err


def test_another_version_of_a_benchmark_is_not_compared(history):
    """As asv has it: a benchmark whose code changed starts again."""

    def change(told):
        told["results"][TIME][0] = [10 * LEVELS["time"]] * 2
        told["results"][TIME][2] = "2"

    for i in range(10, 16):
        edited(run_of(history, i), change)
    assert said(history) == []


@pytest.mark.parametrize(
    "arguments", [["nowhere"], ["."], ["history", "--alpha", "0"], ["history", "--json", "no/x.json"]]
)
def test_a_wrong_call_is_refused_in_one_line(arguments, tmp_path, history, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    if arguments == ["."]:
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert _status(["regressions", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_file_is_strict_json_with_all_that_was_found(tmp_path):
    folder = Written(tmp_path / "history").write(only(NLL, 8, 0.01))
    file = tmp_path / "steps.json"
    regressions(folder, alpha=0.01, json_path=file)

    def refuse(name):
        raise AssertionError(name)

    told = json.loads(file.read_text(), parse_constant=refuse)
    assert told["failed"] is True
    assert [(step["commit"], step["fails"]) for step in told["steps"]] == [(commit(8), True)] * 2
    assert told["series"] == {"judged": 32, "too_short": 0}


def test_two_commits_are_too_few_for_timings_and_enough_for_nll(tmp_path):
    folder = Written(tmp_path, commits=2).write(lambda name, i: 0.02 * i)
    assert said(folder) == sorted([(f"models.Model{i}.track_nll", commit(1), "code") for i in range(4)] * 2)
    assert judged(read(folder)).short == 24


def test_what_asv_itself_writes_is_read(tmp_path):
    from asv.results import Results
    from asv.runner import BenchmarkResult

    for i in range(3):
        told = Results({"machine": "m", "torch": "2"}, {}, commit(i), 1000 * i, "3.11", "existing", {})
        measured = BenchmarkResult([2.0 + i], [[1.0 + i, 2.0 + i, 3.0 + i]], [1], 0, "", None)
        told.add_result({"name": "speed.track_time", "version": "1", "params": []}, measured, record_samples=True)
        (tmp_path / "m").mkdir(exist_ok=True)
        told.save(str(tmp_path))
    (series,) = read(tmp_path).series
    assert [point.value for point in series.points] == [2.0, 3.0, 4.0]
    assert series.points[0].samples == (1.0, 2.0, 3.0)
    assert series.environment.facts[-1] == ("torch", "2")
