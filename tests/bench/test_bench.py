"""`harness bench` for real: processes that take turns, a planted 10 %, sides that fail, commits, and the files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from harness.adapters import adapt
from harness.bench import bench as command
from harness.bench.bench import Call, bench
from harness.bench.job import Job, OutputError
from harness.bench.machine import machine
from harness.bench.rounds import Contender, Outcome, Setting, capability_of, one_round, same_work
from harness.bench.side import Side, SideError
from harness.bench.trees import here
from harness.bench.verdict import Round
from harness.bench.worker import Worker, _refuse_strangers
from harness.cli import _status
from harness.errors import CallError

MODELS = Path(__file__).parents[1] / "models_for_tests" / "timed.py"
KINDS = ("Quick", "Slow", "Double", "Short", "Infinite", "Hangs", "Dies", "Leaves", "Raises")
NAMES = {name: f"{MODELS}:{name}" for name in KINDS}


def test_ten_per_cent_are_found_and_a_model_is_no_slower_than_itself(tmp_path):
    """Sleeps of 10 and 11 ms in three processes, the lowest tenth of which is too long by far less than 3 % even on a
    busy machine: B beside A, and A beside itself."""
    a, b = (Contender(name, NAMES[name], here()) for name in ("Quick", "Slow"))
    outcome = Outcome(10)
    one_round(a, b, Setting("log_prob", 10, budget=3.0, rounds=1), tmp_path, outcome)
    (found,) = outcome.rounds
    assert found.log_ratio == pytest.approx(math.log(1.1), abs=0.03)
    assert found.log_null == pytest.approx(0.0, abs=0.03)
    assert outcome.outputs["a"]["shape"] == outcome.outputs["b"]["shape"] == [10]
    assert min(outcome.first["b"]) >= 0.011


@pytest.mark.parametrize(
    ("seconds", "verdict", "strict", "status"),
    [
        ((1.1,) * 3, "SLOWER", False, 1),
        ((0.9,) * 3, "FASTER", False, 0),
        ((1.01,) * 3, "SAME", True, 0),
        ((0.9, 1.0, 1.2), "AMBIGUOUS", False, 0),
        ((0.9, 1.0, 1.2), "AMBIGUOUS", True, 1),
    ],
)
def test_the_verdict_is_told_written_and_is_the_exit_status(
    seconds, verdict, strict, status, tmp_path, monkeypatch, capsys
):
    """Three rounds, of which B takes so many seconds and A one."""
    left = iter(seconds)

    def fake(a, b, setting, folder, outcome):
        outcome.note([{"name": "m", "can": [], "machine": machine()}] * 2)
        outcome.of = "log_prob"
        outcome.rounds.append(Round((1.0,) * 4, (next(left),) * 4, (1.0,) * 4))

    monkeypatch.setattr(command, "one_round", fake)
    file = tmp_path / "bench.json"
    assert bench(Call((NAMES["Quick"], NAMES["Slow"]), rounds=3, strict=strict, json=file)) == status
    told = json.loads(file.read_text())
    assert told["verdict"] == verdict
    assert told["low"] <= told["ratio"] <= told["high"]
    assert [sum(each["b"]) / 4 for each in told["rounds"]] == pytest.approx(list(seconds))
    assert f"{verdict}: B differs by" in capsys.readouterr().out


def test_one_model_is_timed_with_its_memory_and_ceilings(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert bench(Call((NAMES["Quick"],), budget=0.2, n=10, json=file)) == 0
    told = json.loads(file.read_text())
    rows = {row["of"]: row for row in told["rows"]}
    assert set(rows) == {"sample", "log_prob"}
    assert rows["log_prob"]["timing"]["median"] >= 0.010
    assert rows["log_prob"]["seconds_per_row"] == rows["log_prob"]["timing"]["median"] / 10
    assert 0 < rows["log_prob"]["roofline"] < 1
    assert rows["sample"]["bytes"] >= 2**20
    assert told["ceilings"]["copy_bytes_per_second"] > 0
    assert str(MODELS.parent) not in json.dumps(told["machine"])
    assert "log_prob" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "says"),
    [("Dies", "killed by SIGKILL"), ("Leaves", "exit status 3")],
)
def test_a_side_that_is_gone_costs_one_line_and_status_1(name, says, tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert bench(Call((NAMES[name],), metric="log_prob", n=10, json=file)) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert says in said
    assert name in said
    assert json.loads(file.read_text())["verdict"] == "ERROR"


def test_an_interrupted_comparison_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "one_round", interrupted)
    assert _status(["bench", NAMES["Quick"], NAMES["Slow"], "--json", str(tmp_path / "b.json")]) == 130
    assert "interrupted before there was a verdict" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


def test_a_side_that_hangs_is_given_up_and_killed(tmp_path):
    with Side("A", Path.cwd(), threads=1, timeout=60.0) as side:
        side.ask("build", spec=NAMES["Hangs"], folders=[], instead_of="", device="cpu", dtype="", threads=1)
        file = str(tmp_path / "pool.pt")
        side.ask("make_pool", n=5, seed=0, data="", file=file)
        side.ask("read_pool", file=file)
        side.timeout = 0.3
        with pytest.raises(SideError, match=r"A: no answer for 0.3 s during nll"):
            side.ask("nll", n=5, seed=0, file=file)
        process = side._process
    assert process.returncode is not None


# ------------------------------------------------------------------------------------------------------- commits


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@example.invalid")
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """Two commits of a model: the second one's mean is off by 0.2, which costs 0.02 nats. The checkout has a third."""
    folder = tmp_path / "repository"
    (folder / "laws").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    text = MODELS.read_text().replace("seconds, mean = 0.010, 0.0", "seconds, mean = 0.0, {mean}")
    for mean in ("0.0", "0.2"):
        (folder / "laws" / "models.py").write_text(text.replace("{mean}", mean))
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"mean {mean}")
    (folder / "laws" / "models.py").write_text(text.replace("{mean}", "9.0"))
    monkeypatch.chdir(folder)
    return folder


def test_two_commits_are_compared_at_the_same_points(repository, tmp_path, capsys):
    """E[NLL_B - NLL_A] = 0.2^2 / 2 = 0.02; per point 0.02 - 0.2 x, so the standard error at 10,000 points is 0.002."""
    file = tmp_path / "bench.json"
    call = Call(("laws.models:Quick",), commits=("HEAD~1", "HEAD"), metric="nll", json=file)
    assert bench(call) == 1
    told = json.loads(file.read_text())
    assert told["verdict"] == "WORSE"
    assert told["difference"]["estimate"] == pytest.approx(0.02, abs=5 * 0.002)
    assert told["b"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert git(repository, "worktree", "list").count("\n") == 0  # nothing is left behind
    assert "WORSE" in capsys.readouterr().out


def test_what_is_in_no_commit_is_refused(tmp_path, monkeypatch):
    """A module of the checkout, whose code is that of no commit; what is installed in it is none of its own."""
    stray, installed = ModuleType("stray"), ModuleType("installed")
    stray.__file__ = str(tmp_path / "stray.py")
    installed.__file__ = str(tmp_path / "lib" / "site-packages" / "installed.py")
    monkeypatch.setitem(sys.modules, "installed", installed)
    _refuse_strangers(str(tmp_path))
    monkeypatch.setitem(sys.modules, "stray", stray)
    with pytest.raises(CallError, match="stray is not in the commit"):
        _refuse_strangers(str(tmp_path))


@pytest.mark.parametrize(("commits", "says"), [(("nothing", "HEAD"), "nothing"), (("HEAD", ""), "commit")])
def test_commits_that_are_none_are_named(repository, commits, says):
    with pytest.raises(CallError, match=says):
        bench(Call(("laws.models:Quick",), commits=commits))


# ---------------------------------------------------------------------------------------------- a job in itself


def job(name: str, capability: str = "log_prob") -> Job:
    worker = Worker()
    worker.build(NAMES[name], [], "", "cpu", "", 1)
    return Job(worker.model, capability, 8, 0, torch.linspace(-2, 2, 16)[:, None])


@pytest.mark.parametrize(("name", "says"), [("Short", "8 rows"), ("Infinite", "not finite")])
def test_what_is_not_the_work_that_was_asked_for_is_refused(name, says):
    wrong = job(name)
    given = torch.linspace(-2, 2, 8)[:, None]
    with pytest.raises(OutputError, match=says):
        wrong.inspect(wrong.call(given))


def test_inputs_are_those_of_the_repetition_and_of_no_other():
    first, second = job("Quick"), job("Quick")
    assert torch.equal(first.fresh(3), second.fresh(3))
    assert not torch.equal(first.fresh(3), first.fresh(4))
    draws = [job("Quick", "sample").call(job("Quick", "sample").fresh(i)) for i in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_fit_is_inspected_by_the_likelihood_of_what_was_fitted():
    from reference_impls.gaussian import standard

    model = adapt(standard())
    draws = model.sample(128, generator=torch.Generator().manual_seed(0))
    work = Job(model, "fit", 64, 0, draws)
    work.inspect(work.call(work.fresh(0)))
    assert work.seen["shape"] == [64]


def test_sides_whose_outputs_differ_do_not_do_the_same_work():
    a, b = (Contender(label, "", here()) for label in "AB")
    same_work(a, b, {"shape": [3], "dtype": "float32"}, {"shape": [3], "dtype": "float32"})
    with pytest.raises(SideError, match="--dtype"):
        same_work(a, b, {"shape": [3], "dtype": "float32"}, {"shape": [3], "dtype": "float64"})
    with pytest.raises(SideError, match="shape"):
        same_work(a, b, {"shape": [3], "dtype": "float32"}, {"shape": [3, 1], "dtype": "float32"})


@pytest.mark.parametrize(
    ("can", "data", "of"),
    [
        ([["log_prob", "sample"], ["log_prob"]], "", "log_prob"),
        ([["log_prob", "sample"], ["sample"]], "", "sample"),
        ([["log_prob"], ["log_prob"]], "x.npy", "log_prob"),
    ],
)
def test_memory_is_that_of_a_call_which_both_can_make(can, data, of):
    assert capability_of("memory", [{"can": each} for each in can], data) == of


def test_a_worker_answers_in_one_sentence(tmp_path):
    worker = Worker()
    asked = {"folders": [], "instead_of": "", "device": "cpu", "dtype": "", "threads": 1}
    assert "no file" in worker.answer({"do": "build", "spec": "nowhere.py:Quick", **asked})["refused"]
    assert worker.answer({"do": "build", "spec": NAMES["Raises"], **asked})["name"] == "Raises"
    worker.answer({"do": "make_pool", "n": 4, "seed": 0, "data": "", "file": str(tmp_path / "pool.pt")})
    worker.answer({"do": "read_pool", "file": str(tmp_path / "pool.pt")})
    said = worker.answer({"do": "prepare", "metric": "log_prob", "of": "log_prob", "n": 4, "seed": 0, "clock": "wall"})
    assert said == {"raised": "ArithmeticError: no such luck"}


def test_events_are_read_from_files(tmp_path):
    worker = Worker()
    np.save(tmp_path / "x.npy", np.zeros((6, 2), np.float32))
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY and then nothing")
    np.save(tmp_path / "scalar.npy", np.float32(1.0))
    torch.save(torch.zeros(6, 2).to_sparse(), tmp_path / "sparse.pt")
    torch.save({"a function": print}, tmp_path / "trap.pt")
    worker.build(NAMES["Quick"], [], "", "cpu", "", 1)
    asked = {"do": "make_pool", "n": 4, "seed": 0, "file": str(tmp_path / "pool.pt")}
    assert worker.answer({**asked, "data": str(tmp_path / "x.npy")}) == {"shape": [6, 2]}
    assert "bad.npy" in worker.answer({**asked, "data": str(tmp_path / "bad.npy")})["refused"]
    for name in ("scalar.npy", "sparse.pt"):
        assert "no rows" in worker.answer({**asked, "data": str(tmp_path / name)})["refused"]
    assert "more than a tensor" in worker.answer({**asked, "data": str(tmp_path / "trap.pt")})["refused"]


# --------------------------------------------------------------------------------------------------- wrong calls


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a:b", "c:d", "e:f"], "3 SPECs"),
        (["a:b", "--metric", "speed"], "--metric"),
        (["a:b", "--metric", "nll"], "second SPEC"),
        (["a:b", "c:d", "--commits", "main", "HEAD"], "--commits"),
        (["a:b", "--rounds", "2"], "--rounds"),
        (["a:b", "--threads", "0"], "--threads"),
        (["a:b", "--budget", "nan"], "--budget"),
        (["a:b", "--policy", "-1"], "--policy"),
        (["a:b", "--device", "tpu"], "--device"),
        (["a:b", "--clock", "sun"], "--clock"),
        (["a:b", "--clock", "cpu", "--device", "cuda"], "--clock"),
        (["a:b", "--n", "1"], "--n"),
        (["a:b", "--data", "nowhere.npy"], "--data"),
        (["a:b", "--json", "/nowhere/x.json"], "/nowhere"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(arguments, says, capsys):
    assert _status(["bench", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
