"""The speed benchmark at sizes at which its numbers mean nothing: rows, agreement, and what it says of a wrong peer."""

import importlib.util
import itertools
import json
import math
import time
from types import SimpleNamespace

import pytest
import torch

from suites.data import DataError
from suites.speed import cases, growth, paired, ratios
from suites.speed.cases import SMALL
from suites.speed.paired import compared, interval, processors, threads
from suites.speed.ratios import CASES

TWO_BLOCKS = {"budget": 0.0, "fewest": 2}
INSTALLED = [case for case in cases.CASES if case.peer.startswith("torch") or case.peer == "scikit-learn"]
OURS = [case for case in CASES if case.versions == ("torch",) and case not in INSTALLED]
"""Those whose peer is the plain way to the same numbers."""


def named(case):
    return f"{case.name}-{case.peer}-{case.dtype}-{case.note}".replace(" ", "_")


@pytest.mark.parametrize("case", [*INSTALLED, *OURS], ids=named)
def test_ours_and_the_peer_agree(case):
    state = torch.get_rng_state()
    row = ratios.ratio(case, SMALL, count=1, **TWO_BLOCKS)
    assert torch.equal(torch.get_rng_state(), state)
    assert row["agrees"], row
    assert 0 < row["low"] <= row["ratio"] <= row["high"] < math.inf
    assert row["met"] == (row["ratio"] >= case.bar)
    assert row["decided"] == (row["low"] >= case.bar or row["high"] < case.bar)
    assert set(row["versions"]) == set(case.versions)
    assert json.loads(json.dumps(row, allow_nan=False)) == row


@pytest.mark.parametrize("case", [case for case in CASES if case not in [*INSTALLED, *OURS]], ids=named)
def test_other_peers_agree_or_say_why_they_are_skipped(case):
    row = ratios.ratio(case, SMALL, count=1, **TWO_BLOCKS)
    assert row.get("skipped") or row["agrees"], row
    if importlib.util.find_spec(case.peer) is None:
        assert case.peer in row["skipped"]


@pytest.mark.parametrize("case", INSTALLED, ids=named)
def test_a_result_that_is_slightly_off_disagrees(case):
    pair = case.prepare(SMALL, getattr(torch, case.dtype), 1)
    with cases.global_generator_put_back():
        right, peer = pair.ours(), pair.theirs()
    if case.name == "mixture.em":
        history = right[1].clone()
        history[-1] += 1e-5 * (history[-1] - history[0])
        wrong = (right[0], history)
    else:
        wrong = right * (1.5 if case.name == "gaussian.sample" else 1.01)  # 500 draws show no less than the first
    assert not pair.disagreement(wrong, peer) <= 1
    if case.name != "mixture.em":
        wrong = right.clone()
        wrong[0] = math.nan
        assert not pair.disagreement(wrong, peer) <= 1
        assert not pair.disagreement(right[:-1], peer) <= 1


def test_missing_data_are_a_reason(monkeypatch):
    def prepare(sizes, dtype, count):
        raise DataError("no such file;\n set HARNESS_DATA")

    case = cases.Case("any", "peer", 1.0, "float64", (), prepare)
    assert ratios.ratio(case, SMALL, 0.0, 1)["skipped"] == "no such file; set HARNESS_DATA"


def test_the_ratio_is_that_of_the_times():
    found = compared(lambda: time.sleep(0.004), lambda: time.sleep(0.012) or 7, budget=0.0)
    # A sleep lasts at least that long, and so much longer as the machine is busy: of the order only.
    assert found.seconds >= 0.004
    assert found.peer_seconds >= 0.012
    assert found.blocks == 5
    assert (found.result, found.peer_result) == (None, 7)
    assert found.low <= found.ratio <= found.high


@pytest.fixture
def lasting(monkeypatch):
    """Calls that take these seconds in turn, over and over, by a clock of their own: a busy machine changes nothing."""
    now = [0.0]
    monkeypatch.setattr(paired, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def make(*seconds):
        turns = itertools.cycle(seconds)
        return lambda: now.__setitem__(0, now[0] + next(turns))

    return make


def test_a_ratio_in_doubt_of_its_bar_is_measured_on_once(lasting):
    """The peer takes 2 or 8 s by turns of a block, so that no bar between is ever clear: 5 blocks, then 20 more."""
    theirs = lasting(2.0, 2.0, 8.0, 8.0)
    theirs()
    found = compared(lasting(1.0), theirs, budget=0.0, bar=4.0)
    assert found.blocks == 25
    assert found.low < 4.0 < found.high


@pytest.mark.parametrize("bar", [0.0, 1.0, 100.0])
def test_a_ratio_that_is_clear_is_not(bar, lasting):
    assert compared(lasting(1.0), lasting(4.0, 4.1, 4.0), budget=0.0, bar=bar).blocks == 5


def test_the_interval_covers_as_often_as_it_says():
    """400 intervals of 5 normal values: 95 % cover; 360 or fewer would be 4.6 standard errors below."""
    g = torch.Generator().manual_seed(0)
    values = torch.randn(400, 5, generator=g, dtype=torch.float64).tolist()
    covers = sum(low <= 0 <= high for low, high in map(interval, values))
    assert 360 < covers < 399


def test_threads_are_set_and_put_back():
    before = torch.get_num_threads()
    with threads(2 if before == 1 else 1):
        assert torch.get_num_threads() != before
    assert torch.get_num_threads() == before
    assert processors() >= 1


def test_a_point_of_the_growth_is_measured_in_a_process_of_its_own():
    rows = list(growth.grown({"mixture.log_prob": ((200, 2, 2),)}, lambda case: True))
    assert [row["size"] for row in rows] == [{"n": 200, "d": 2, "k": 2}]
    assert rows[0]["seconds"] > 0
    assert rows[0]["megabytes"] >= 0


def test_memory_of_log_prob_does_not_grow_with_n_k_d():
    """n K D numbers would be 128 MB; the result is 1.6 MB, and chunks are a few half megabytes."""
    (row,) = growth.grown({"mixture.log_prob": ((200_000, 8, 10),)}, lambda case: True)
    assert row["n_k_d_megabytes"] == 128.0
    assert row["megabytes"] < 32.0


def test_every_case_of_the_grid_runs_at_a_tiny_size():
    for case in growth.GRID:
        assert growth.point(case, 100, 2, 2)["seconds"] > 0


def test_the_command_writes_strict_json(tmp_path, capsys):
    file = tmp_path / "speed.json"
    call = ["--small", "--only", "MixtureSameFamily", "--budget", "0", "--no-growth", "--json", str(file)]
    assert ratios.main(call) == 0
    told = json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert {row["case"] for row in told["ratios"]} == {"mixture.log_prob"}
    assert {row["threads"] for row in told["ratios"]} == {1, processors()}
    assert "MixtureSameFamily" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]


def test_an_interrupted_run_leaves_its_rows_and_the_file_of_the_whole(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    file = tmp_path / "speed.json"
    file.write_text("of all cases")
    monkeypatch.setattr(ratios, "CASES", CASES[:1])
    monkeypatch.setattr(ratios.growth, "grown", interrupted)
    monkeypatch.setattr(ratios, "Sizes", lambda: SMALL)
    with pytest.raises(KeyboardInterrupt):
        ratios.main(["--budget", "0", "--json", str(file)])
    assert len(json.loads((tmp_path / "speed.part.json").read_text())["ratios"]) == len({1, processors()})
    assert file.read_text() == "of all cases"


def test_a_wrong_call_says_what_to_do(capsys):
    with pytest.raises(SystemExit):
        ratios.main(["--only", "no-such-case"])
    assert "gaussian.log_prob" in capsys.readouterr().err


def test_a_part_is_not_written_over_the_whole(tmp_path, capsys):
    file = tmp_path / "speed.json"
    file.write_text("of all cases")
    for part in (["--small"], ["--only", "gaussian"], ["--no-growth"]):
        with pytest.raises(SystemExit):
            ratios.main([*part, "--json", str(file)])
        assert "name a new file" in capsys.readouterr().err
    assert file.read_text() == "of all cases"
