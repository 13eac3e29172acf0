"""Parts of the self-test: which rows a word selects, how they join those of a file, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest

from harness import selftest
from harness.errors import CallError, InterruptedRunError
from harness.selftest_rows import Row, merged, read, write

SOON = "log_det_sign"
"""The planted bug that is found soonest."""
ONE = f"{SOON}+quick+d=1+scale=1"
"""A single row."""


def told(path: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(path.read_text())["rows"]]


@pytest.mark.parametrize(
    ("word", "holds"),
    [
        ("standard", lambda case: case.effort == "standard"),
        ("quick", lambda case: case.effort == "quick"),
        ("d=10", lambda case: case.dimension == 10),
        ("scale=1000", lambda case: case.scale == 1000),
        ("alpha=0.05", lambda case: case.alpha == 0.05),
        ("planted", lambda case: case.group == "planted"),
        ("near miss", lambda case: case.group == "near miss"),
        ("two modes, 2-d", lambda case: case.model == "two modes, 2-d"),
        ("sampler.bridge", lambda case: case.law == "sampler.bridge"),
        ("mean_shifted", lambda case: case.mutant == "mean_shifted"),
    ],
)
def test_a_word_selects_a_group_bug_model_check_effort_dimension_scale_or_budget(word, holds):
    chosen = selftest.selected([word])
    assert chosen == [case for case in selftest.cases() if holds(case)]
    assert 0 < len(chosen) < len(selftest.cases())


def test_joined_words_must_all_hold_and_repeated_ones_need_not():
    both = selftest.selected(["standard+d=50+discrete"])
    assert {(case.effort, case.dimension, case.model) for case in both} == {("standard", 50, "discrete")}
    either = selftest.selected(["d=50", "correct"])
    assert {case.dimension == 50 or case.group == "correct" for case in either} == {True}
    assert len(either) == len(selftest.selected(["d=50"])) + len(selftest.selected(["correct"]))


@pytest.mark.parametrize("word", ["d=7", "standard+d=7", "quick+standard", "d=0", "scale=0", "Standard"])
def test_words_that_select_nothing_are_refused(word):
    with pytest.raises(ValueError, match=r"no mutant or model of the self-test matches .*standard.*d=50"):
        selftest.selected([word])


def row(mutant: str, seeds: int, **other: object) -> Row:
    base = Row("planted", mutant, "", "model", 1, 1.0, "quick", "some.check", seeds, 0, None, 0, 1e-6, "")
    return replace(base, **other)


def test_measured_again_a_row_is_replaced_and_the_others_stay_where_they_were():
    old = [row("a", 1), row("b", 1), row("c", 1), row("gone", 1)]
    new = [row("b", 2, check="other.check"), row("d", 2)]
    order = [row(name, 0).place for name in "dabc"]
    assert [(r.mutant, r.seeds) for r in merged(old, new, order)] == [
        ("d", 2),
        ("a", 1),
        ("b", 2),
        ("c", 1),
        ("gone", 1),
    ]


def test_the_check_is_part_of_what_a_mutants_row_is_about():
    same = {"group": "mutant", "seeds": 1}
    first, second = row("a", **same, check="one.check"), row("a", **same, check="other.check")
    assert merged([first], [second], []) == [first, second]


def test_a_part_measured_again_replaces_its_rows_in_the_file(tmp_path):
    path = tmp_path / "selftest.json"
    other = row("b", 7)
    earlier = row(SOON, 99, model="continuous", found=5)
    write(path, [other, earlier])
    assert selftest.run_selftest(only=[ONE], seeds=5, json_path=path, merge=True) == 0
    again = {r.mutant: r for r in told(path)}
    assert again["b"] == other
    assert (again[SOON].seeds, again[SOON].found, len(again)) == (1, 1, 2)
    assert selftest.run_selftest(only=[ONE], seeds=5, json_path=path) == 0
    assert [r.mutant for r in told(path)] == [SOON]  # without merge, the file is what was measured now


def test_rows_of_a_file_from_before_there_were_seconds_are_kept(tmp_path):
    path = tmp_path / "selftest.json"
    write(path, [row("b", 7)])
    data = json.loads(path.read_text())
    for name in ("first_seed", "seconds", "cpus"):
        del data["rows"][0][name]
    path.write_text(json.dumps(data))
    assert read(path) == [row("b", 7)]


def test_no_file_yet_means_no_rows(tmp_path):
    assert read(tmp_path / "new.json") == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.update(schema_version="0.5"), "another schema version"),
        (lambda data: data["versions"].update(torch="1.0"), "measured with .*torch 1.0"),
        (lambda data: data.pop("rows"), "holds no rows"),
        (lambda data: data["rows"][0].update(colour="red"), "holds no rows"),
    ],
)
def test_a_file_that_rows_cannot_join_is_refused_and_left_as_it_was(tmp_path, change, says):
    path = tmp_path / "selftest.json"
    write(path, [row("b", 7)])
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    before = path.read_text()
    with pytest.raises(CallError, match=says):
        selftest.run_selftest(only=[ONE], seeds=5, json_path=path, merge=True)
    assert path.read_text() == before


def test_what_is_no_json_is_refused(tmp_path):
    path = tmp_path / "selftest.json"
    for text in ("", "[1]", "no"):
        path.write_text(text)
        with pytest.raises(CallError, match="holds no rows"):
            read(path)


def after_each_row(act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `act` happen as soon as a row is kept."""
    measure = selftest.measure

    def acting(only, seeds, workers, progress):
        def then_act(done, total, seen):
            progress(done, total, seen)
            act()

        return measure(only, seeds, workers, then_act)

    monkeypatch.setattr(selftest, "measure", acting)


@pytest.mark.parametrize("to_file", [True, False])
def test_a_worker_that_is_killed_ends_the_run_with_one_line_and_keeps_the_rows(tmp_path, monkeypatch, capsys, to_file):
    path = tmp_path / "selftest.json" if to_file else None
    strangers = active_children()

    def kill():
        for worker in active_children():
            if worker not in strangers:
                worker.kill()

    after_each_row(kill, monkeypatch)
    assert selftest.run_selftest(only=[f"{SOON}+quick+d=1"], seeds=25, json_path=path) == 1
    said = capsys.readouterr().err
    kept = f"what was measured is in {path}" if to_file else "without --json nothing is kept"
    assert said.startswith(f"harness: a worker process was killed after 1 of 3 rows; {kept}. ")
    assert said.count("\n") == 1, said
    if path is not None:
        assert [r.mutant for r in told(path)] == [SOON]


def test_an_interrupt_keeps_the_rows_and_says_how_many(tmp_path, monkeypatch):
    path = tmp_path / "selftest.json"
    write(path, [row("b", 7)])

    def interrupt():
        raise KeyboardInterrupt

    after_each_row(interrupt, monkeypatch)
    with pytest.raises(InterruptedRunError, match=f"after 1 of 3 rows; what was measured is in {path}"):
        selftest.run_selftest(only=[f"{SOON}+quick+d=1"], seeds=5, json_path=path, merge=True)
    assert [r.mutant for r in told(path)] == [SOON, "b"]


def test_ctrl_c_ends_the_command_at_once_with_one_line_and_leaves_no_process(tmp_path):
    """The real thing: the signal goes to every process of the group, as from a terminal."""
    path = tmp_path / "selftest.json"
    command = [sys.executable, "-m", "harness.cli", "selftest", "--only", "planted+standard", "--seeds", "50"]
    process = subprocess.Popen(
        [*command, "--json", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests may ignore it
    )
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)
    rows = len(told(path))
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 130
    assert said.startswith("harness: interrupted after ")
    assert said.count("\n") == 1, said
    assert len(told(path)) >= rows >= 1
    assert _gone(process.pid)


def _gone(group: int) -> bool:
    """Does the process group end within a few seconds?"""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
