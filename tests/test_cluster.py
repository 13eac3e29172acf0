"""A Dask cluster gives the records of one machine, whatever is killed on the way. A real LocalCluster, real signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness import commands
from harness.cluster import Cluster
from harness.compare.command import Call, compare
from harness.effort import effort_named
from harness.errors import CallError
from harness.evidence import Raised, Verdict
from harness.isolate import Options, Unwatched, examine, expand
from harness.processes import Processes

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

MODELS = Path(__file__).parent / "models_for_tests"
OPTIONS = Options(effort="quick", seed=0, alpha=1e-6, only=("log_prob", "sampler.bridge"))
SPECS = [
    *(f"{MODELS}/good.py:{name}" for name in ("Plain", "Shifted")),
    *(f"{MODELS}/hostile.py:{name}" for name in ("Raises", "LeavesAtOnce", "Segfaults")),
]
SLOW = """
import time
import torch

class Slow:
    def sample(self, n, *, generator):
        time.sleep(0.05)
        return torch.randn(n, generator=generator)
"""


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=None, silence_logs="CRITICAL"
    ) as local:
        yield local


@pytest.fixture
def address(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)  # a test before may have killed one
    return cluster.scheduler_address


def found(workforce, specs, options=OPTIONS):
    with workforce as processes:
        records, interrupted = examine(processes, expand(processes, specs), options, Unwatched())
    assert not interrupted
    return [(each.model, each.check, each.verdict, each.message, each.evidence) for each in records]


def test_the_records_are_those_of_one_machine(address):
    here, there = found(Processes(workers=2), SPECS), found(Cluster(address), SPECS)
    plain = [(*row[:4], row[4] if not isinstance(row[4], Raised) else row[4].kind) for row in here]
    assert plain == [(*row[:4], row[4] if not isinstance(row[4], Raised) else row[4].kind) for row in there]
    assert {("Plain", Verdict.PASS), ("Shifted", Verdict.FAIL)} <= {(row[0], row[2]) for row in there}
    assert {"LeavesAtOnce", "Segfaults"} <= {row[0] for row in there if row[2] is Verdict.ERROR}


def test_a_worker_that_is_killed_costs_time_and_no_verdict(address, tmp_path):
    """kill -9 on the process of a Dask worker while it examines: its models are examined by another one."""
    (tmp_path / "slow.py").write_text(SLOW)
    spec = f"{tmp_path}/slow.py:Slow"
    options = replace(OPTIONS, only=("sample",))
    with distributed.Client(address, set_as_default=False) as client:
        pids = client.run(os.getpid)
        killer = threading.Thread(target=kill_one_that_works, args=(address, pids))
        killer.start()
        records = found(Cluster(address), [spec], options)
        killer.join()
        assert set(client.run(os.getpid).values()) != set(pids.values())
    assert not killed_in_vain
    assert records == found(Processes(), [spec], options)
    assert {row[2] for row in records} <= {Verdict.PASS, Verdict.SKIP}


killed_in_vain: list[str] = []


def kill_one_that_works(address, pids):
    with distributed.Client(address, set_as_default=False) as client:
        for _ in range(600):
            busy = [worker for worker, keys in client.processing().items() if any("harness" in key for key in keys)]
            if busy:
                time.sleep(0.5)
                os.kill(pids[busy[0]], signal.SIGKILL)
                return
            time.sleep(0.05)
    killed_in_vain.append("no worker was busy within 30 seconds")


def test_a_run_that_is_stopped_keeps_what_it_has_and_leaves_the_cluster_usable(address, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW.replace("0.05", "5"))
    stop = threading.Event()
    threading.Timer(2.0, stop.set).start()
    with Cluster(address, stop=stop.is_set) as processes:
        endings = processes.run([request(f"{tmp_path}/slow.py:Slow")] * 4, lambda index, message: None)
    assert {ending.cause for ending in endings if ending is not None} <= {"interrupted"}
    assert sum(ending is None for ending in endings) >= 2  # two workers had one each, the others never started
    assert found(Cluster(address), SPECS[:1])


def request(spec):
    of_model = {"job": "examine", "spec": spec, "name": "slow", "alpha": 1e-6, "only": ["sample"], "alphas": {}}
    return {
        **of_model,
        "effort": asdict(effort_named("quick")),
        "seed": 0,
        "budget": None,
        "device": "cpu",
        "dtype": "",
    }


def test_the_command_writes_the_same_json(address, tmp_path, capsys):
    read = []
    for name, given in (("here", {}), ("there", {"scheduler": address})):
        path = tmp_path / f"{name}.json"
        commands.check(SPECS[:2], {"effort": "quick", "only": ("log_prob",), "json": path, **given})
        data = json.loads(path.read_text())
        read.append([{**record, "seconds": 0} for record in data["records"]])
    capsys.readouterr()
    assert read[0] == read[1]


def test_a_leaderboard_has_the_same_rows(address, tmp_path, capsys):
    boards = []
    for name, given in (("here", {}), ("there", {"scheduler": address})):
        path = tmp_path / f"{name}.json"
        spec = "sklearn.mixture:GaussianMixture"
        assert compare(Call((spec,), "iris", budget=5.0, json=path, **given)) == 0
        boards.append(json.loads(path.read_text())["rows"][0])
    capsys.readouterr()
    assert boards[0]["nll"] == boards[1]["nll"]


PLACED = """
import os
from pathlib import Path

import torch


class Spy(torch.Tensor):
    \"\"\"It writes down on which worker it is moved where, and stays.\"\"\"

    def to(self, *, device, dtype):
        with open(Path(__file__).with_name("moves.txt"), "a") as file:
            print(os.environ["KIND"], device, file=file)
        return self


class Placed:
    def __init__(self):
        self.loc = torch.zeros(2).as_subclass(Spy)

    def sample(self, n, *, generator):
        return torch.randn(n, 2, generator=generator)
"""


@pytest.fixture(scope="module")
def mixed():
    """The address of a cluster of one worker with the resource GPU, whether or not there is one, and one without."""
    workers = {
        kind: {
            "cls": distributed.Nanny,
            "options": {"nthreads": 1, "memory_limit": None, "env": {"KIND": kind}, "resources": resources},
        }
        for kind, resources in (("gpu", {"GPU": 1}), ("plain", {}))
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}}
    with distributed.SpecCluster(workers=workers, scheduler=scheduler, silence_logs="CRITICAL") as local:
        with distributed.Client(local, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield local.scheduler_address


def test_instances_on_cuda_go_to_the_workers_that_offer_a_gpu(mixed, tmp_path, capsys):
    (tmp_path / "placed.py").write_text(PLACED)
    spec, path = f"{tmp_path}/placed.py:Placed", tmp_path / "run.json"
    given = {"seed": "0,1,2", "device": "cpu,cuda", "effort": "quick", "only": ("sample.well_formed",)}
    commands.check([spec, SPECS[0]], {**given, "json": path, "scheduler": mixed})
    capsys.readouterr()
    data = json.loads(path.read_text())
    assert (data["run"]["seed"], data["run"]["device"]) == ([0, 1, 2], ["cpu", "cuda"])
    found_at = {(record["model"], record["seed"], record["device"]) for record in data["records"]}
    assert len(found_at) == 12
    moves = {tuple(line.split()) for line in (tmp_path / "moves.txt").read_text().splitlines()}
    assert moves == {("gpu", "cuda")}  # the others have nothing to move
    here = tmp_path / "here.json"
    commands.check([SPECS[0]], {**given, "device": "cpu", "seed": "0,1,2", "json": here})
    capsys.readouterr()
    ours = [{**record, "seconds": 0, "alpha": 0} for record in json.loads(here.read_text())["records"]]
    there = [
        {name: value for name, value in {**record, "seconds": 0, "alpha": 0}.items() if name != "device"}
        for record in data["records"]
        if record["model"] == "Plain" and record["device"] == "cpu"
    ]
    assert there == ours


def test_a_leaderboard_on_cuda_needs_a_worker_with_a_gpu(address, mixed, tmp_path, capsys):
    spec, board = "sklearn.mixture:GaussianMixture", tmp_path / "board.json"
    with pytest.raises(CallError, match="offers a GPU"):
        compare(Call((spec,), "iris", budget=5.0, device=("cuda",), scheduler=address))
    assert compare(Call((spec,), "iris", budget=5.0, device=("cuda",), scheduler=mixed, json=board)) == 1
    capsys.readouterr()
    (row,) = json.loads(board.read_text())["rows"]
    assert row["reason"].startswith("TypeError: sklearn computes on the CPU alone: compare it with --device cpu")


def test_calls_that_cannot_work_say_why(address, monkeypatch, tmp_path):
    monkeypatch.setattr("harness.cluster.CONNECT_SECONDS", 2.0)
    with pytest.raises(CallError, match="no Dask scheduler answers at tcp://127"):
        Cluster("tcp://127.0.0.1:9").__enter__()
    with pytest.raises(CallError, match="leave one out"):
        commands.check(SPECS, {"scheduler": address, "workers": 2})
    with pytest.raises(CallError, match="offers a GPU"), Cluster(address) as processes:
        processes.run([{"job": "examine", "device": "cuda"}], lambda index, message: None)
    monkeypatch.setattr("harness.cluster._versions", lambda: {"torch": "0.0"})
    with pytest.raises(CallError, match="install the same"):
        Cluster(address).__enter__()


@pytest.mark.parametrize("address", ["here", "foo://bar:1", "tcp://host:port", "tcp://host:0", "tcp://host:99999"])
def test_what_is_no_address_is_refused_before_anything_waits_for_it(address):
    with pytest.raises(CallError, match=r"is no address.*give one such as"):
        Cluster(address).__enter__()


def test_dask_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CallError, match=r"genharness\[cluster\]"):
        Cluster("tcp://127.0.0.1:9").__enter__()


def test_a_scheduler_without_workers_is_refused():
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs="CRITICAL") as empty,
        pytest.raises(CallError, match="no worker has joined"),
    ):
        Cluster(empty.scheduler_address).__enter__()


def test_harness_check_imports_no_dask_unless_it_is_asked_to():
    code = "import sys; from harness import cli, commands; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
