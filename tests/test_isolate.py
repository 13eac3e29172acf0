"""Whatever a model does to its process costs that model one ERROR, and costs no other model anything.

Real processes throughout: models hang, exit, crash, fork and fill memory. They are examined once, four at a time, by
the cheap exact checks, each of which takes milliseconds; so a few seconds without progress are a hang.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.evidence import Absent, Raised, Record, Verdict
from harness.isolate import InterruptedRunError, Listed, Options, examine, expand
from harness.job import laws
from harness.processes import Processes
from harness.resolve import SpecError

MODELS = Path(__file__).parent / "models_for_tests"
TIMEOUT = 6.0
MEMORY = 2**28
OPTIONS = Options(effort="quick", seed=0, alpha=1e-6, only=("sample.well_formed", "log_prob"))
FALLS_AT = "log_prob.any_batch_size"
"""The check that makes the third call of log_prob, at which every hostile model misbehaves."""

DIES = {
    "Hangs": ("Hung", "no progress for 6 s during log_prob.any_batch_size, in misbehave (hostile.py, line"),
    "HangsDeafly": ("Hung", "no progress for 6 s"),
    "Exits": ("SystemExit", "sys.exit(3)"),
    "LeavesAtOnce": ("Died", "exit status 0 during log_prob.any_batch_size; it printed last: so long"),
    "Segfaults": ("Died", "killed by SIGSEGV during log_prob.any_batch_size"),
    "EatsMemory": (("MemoryError", "OutOfMemory"), ""),
    "EatsSharedMemory": ("OutOfMemory", "more than 0.25 GiB"),
    "PrintsAndFalls": ("Died", "killed by SIGKILL during log_prob.any_batch_size; it printed last: my last"),
    "ClosesDescriptors": ("Lost", "closed a descriptor"),
    "WritesEverywhere": ("Garbage", "examiner's channel"),
    "KillsItsWatcher": ("Died", "the process that watched the model was killed"),
}
LIVES = ("PrintsAMegabyte", "LeavesDaemon", "LeavesProcesses", "Forks", "ChangesItsProcess")
GOES_ON = (*LIVES, "Raises", "LeavesThread", "EatsMemory", "Exits")
"""After these the model still answers, so that its later checks are made."""

FOR_GOOD = """
import sys
import torch

class Broken:
    calls = 0

    def sample(self, n, *, generator):
        return torch.randn(n, 1, generator=generator)

    def log_prob(self, x):
        self.calls += 1
        if self.calls >= 3:
            {ends}
        return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
"""
"""A model that does not answer any more after two calls."""


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.over: list[str] = []

    def at(self, model: str, stage: str, n: int) -> None:
        pass

    def record(self, record: Record) -> None:
        self.records.append(record)

    def done(self, model: str) -> None:
        self.over.append(model)


def good(attr: str = "Plain") -> str:
    return f"{MODELS}/good.py:{attr}"


def hostile(name: str) -> str:
    return f"{MODELS}/hostile.py:{name}"


@pytest.fixture(scope="module")
def pids(tmp_path_factory):
    path = tmp_path_factory.mktemp("left") / "pids"
    os.environ["HARNESS_TEST_PIDS"] = str(path)
    yield path
    del os.environ["HARNESS_TEST_PIDS"]


@pytest.fixture(scope="module")
def records(pids) -> dict[str, list[Record]]:
    """All of them in one run, the good ones between the hostile ones."""
    specs = [hostile(name) for name in dict.fromkeys([*DIES, *GOES_ON])]
    specs = [good("plain"), *specs, good("Plain"), f"{MODELS}/import_hangs.py:x", f"{MODELS}/import_exits.py:x"]
    with Processes(workers=4, timeout=TIMEOUT, memory=MEMORY) as processes:
        listed = expand(processes, specs)
        found, interrupted = examine(processes, listed, OPTIONS, Watcher())
    assert not interrupted
    return {model.name: [r for r in found if r.model == model.name] for model in listed}


@pytest.fixture(scope="module")
def alone() -> list[Record]:
    """The good model in a run of its own."""
    with Processes(timeout=TIMEOUT) as processes:
        return list(examine(processes, expand(processes, [good()]), OPTIONS, Watcher())[0])


def verdicts(records: list[Record]) -> dict[str, Verdict]:
    return {record.check: record.verdict for record in records}


@pytest.mark.parametrize("name", ["plain", "Plain"])
def test_good_models_are_unaffected_by_the_company(records, alone, name):
    assert verdicts(records[name]) == verdicts(alone)
    assert set(verdicts(alone).values()) <= {Verdict.PASS, Verdict.SKIP}
    assert len(alone) > 5


@pytest.mark.parametrize("name", DIES)
def test_a_model_that_brings_its_process_down_gets_one_error_where_it_was(records, name):
    kinds, said = DIES[name]
    (error,) = [record for record in records[name] if record.verdict is Verdict.ERROR]
    assert error.check == FALLS_AT
    assert isinstance(error.evidence, Raised)
    assert error.evidence.kind in ((kinds,) if isinstance(kinds, str) else kinds)
    assert said in error.message
    assert all(character.isprintable() for character in error.message)


@pytest.mark.parametrize("name", DIES)
def test_what_was_finished_is_kept_and_what_follows_is_blocked(records, alone, name):
    seen = verdicts(records[name])
    assert list(seen) == [record.check for record in alone]  # the whole plan, in its order
    assert seen["sample.well_formed"] is seen["log_prob.well_formed"] is Verdict.PASS
    if name in GOES_ON:
        assert seen == {**verdicts(alone), FALLS_AT: Verdict.ERROR}
    else:
        blocked = [record.evidence for record in records[name] if record.verdict is Verdict.SKIP]
        assert {evidence.blocked_by for evidence in blocked if isinstance(evidence, Absent)} == {FALLS_AT}
        assert set(seen.values()) == {Verdict.PASS, Verdict.ERROR, Verdict.SKIP}


@pytest.mark.parametrize("name", LIVES)
def test_what_harms_nobody_costs_nothing(records, alone, name):
    assert verdicts(records[name]) == verdicts(alone)


def test_an_exception_costs_one_check_and_the_examination_goes_on():
    """In this plan the third call is one for which no check has an exception in mind."""
    checks = ("log_prob.deterministic", "log_prob.leaves_input_unchanged", "log_prob.gradient_finite")
    with Processes(timeout=TIMEOUT) as processes:
        listed = expand(processes, [hostile("Raises")])
        found, _ = examine(processes, listed, replace(OPTIONS, only=checks), Watcher())
    (error,) = [record for record in found if record.verdict is Verdict.ERROR]
    assert (error.check, error.evidence.kind) == (checks[0], "ArithmeticError")
    assert "no such luck" in error.message
    assert {verdicts(found)[check] for check in checks[1:]} == {Verdict.PASS}


def test_an_exception_for_an_empty_batch_is_what_that_check_is_about(records, alone):
    assert verdicts(records["Raises"]) == {**verdicts(alone), FALLS_AT: Verdict.FAIL}
    (fail,) = [record for record in records["Raises"] if record.verdict is Verdict.FAIL]
    assert "raises for n = 0: ArithmeticError: no such luck" in fail.message


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        ("raise ArithmeticError('gone')", "ArithmeticError"),
        ("sys.exit(3)", "SystemExit"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise BaseException('gone')", "BaseException"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise MemoryError", "MemoryError"),
    ],
)
def test_a_capability_that_answers_no_more_is_one_error_that_blocks_the_rest(tmp_path, ends, kind):
    (tmp_path / "broken.py").write_text(FOR_GOOD.format(ends=ends))
    with Processes(timeout=TIMEOUT) as processes:
        listed = expand(processes, [f"{tmp_path}/broken.py:Broken"])
        found, interrupted = examine(processes, listed, OPTIONS, Watcher())
    assert not interrupted
    (error,) = [record for record in found if record.verdict is Verdict.ERROR]
    assert (error.check, error.evidence.kind) == (FALLS_AT, kind)
    blocked = [record.evidence.blocked_by for record in found if record.verdict is Verdict.SKIP]
    assert blocked.count(FALLS_AT) >= 5
    passed = [record.check for record in found if record.verdict is Verdict.PASS]
    assert passed == ["sample.well_formed", "log_prob.well_formed"]
    assert len(found) == len(passed) + 1 + len(blocked)


def test_a_thread_that_would_keep_a_program_from_ending_is_an_error_of_its_own(records, alone):
    seen = verdicts(records["LeavesThread"])
    assert seen.pop("process.left_clean") is Verdict.ERROR
    assert seen == verdicts(alone)
    assert "straggler" in records["LeavesThread"][-1].message


def test_processes_that_a_model_leaves_behind_are_killed(records, pids):
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    for pid in left:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(("name", "kind"), [("import_hangs.py:x", "Hung"), ("import_exits.py:x", "SystemExit")])
def test_an_import_that_never_returns_counts_as_one_model(records, name, kind):
    (spec,) = [model for model in records if model.endswith(name)]
    first, *others = records[spec]
    assert first.verdict is Verdict.ERROR
    assert first.evidence.kind == kind
    assert "while being imported" in first.message
    assert {record.verdict for record in others} == {Verdict.SKIP}


def test_records_are_the_same_however_many_workers():
    options = replace(OPTIONS, only=("log_prob", "sampler.bridge"))
    specs = [good("by_name"), good("Shifted"), hostile("Raises"), hostile("LeavesAtOnce")]
    runs = []
    for workers in (1, 3):
        with Processes(workers=workers) as processes:
            found, _ = examine(processes, expand(processes, specs), options, Watcher())
        traceless = [replace(record, seconds=0.0, reproducer=None) for record in found]
        runs.append([(record.model, record.check, record.verdict, record.message) for record in traceless])
    assert runs[0] == runs[1]
    assert ("Shifted", Verdict.FAIL) in [(row[0], row[2]) for row in runs[0]]


def test_a_fail_carries_the_command_that_shows_it_again():
    options = replace(OPTIONS, only=("sampler.bridge",), seed=5)
    with Processes() as processes:
        found, _ = examine(processes, expand(processes, [good("Shifted")]), options, Watcher())
    (fail,) = [record for record in found if record.verdict is Verdict.FAIL]
    command = fail.reproducer.command
    assert command.startswith("harness check ")
    for words in (good("Shifted"), "--only sampler.bridge", "--seed 5", "--effort quick"):
        assert words in command


def test_alpha_is_shared_by_the_models_and_never_exceeded():
    options = replace(OPTIONS, only=("sampler",), alpha=1e-3)
    with Processes(workers=2) as processes:
        listed = expand(processes, [good("same_names"), good("plain"), good("Plain")])
        found, _ = examine(processes, listed, options, Watcher())
    statistical = [record for record in found if record.evidence.__class__.__name__ == "Estimated"]
    assert len({record.model for record in statistical}) == len(listed) == 4
    for model in listed:
        spent = sum(record.alpha for record in statistical if record.model == model.name)
        assert 0 < spent <= 1e-3 / 4 * (1 + 1e-12)


def test_names_that_several_models_have_give_way_to_their_specs():
    with Processes() as processes:
        listed = expand(processes, [good("plain"), "reference_impls.gaussian:standard", good("Holder.inside")])
        assert [model.name for model in listed] == ["plain", "standard", "inside"]
        twins = expand(processes, [good("plain"), f"{MODELS}/../models_for_tests/good.py:plain"])
        assert [model.name for model in twins] == [model.spec for model in twins]
        with pytest.raises(SpecError, match="twice"):
            expand(processes, [good(), good()])
        with pytest.raises(SpecError, match="did you mean 'plain'"):
            expand(processes, [good(), good("plian")])


def test_stopping_keeps_what_was_finished_and_says_what_was_not():
    stop = threading.Event()
    watcher = Watcher()
    watcher.done = lambda model: stop.set()  # as soon as the first model is through
    with Processes(stop=stop.is_set) as processes:
        listed = expand(processes, [good("plain"), hostile("Hangs"), good("Plain")])
        found, interrupted = examine(processes, listed, OPTIONS, watcher)
    assert interrupted
    finished = [record for record in found if record.model == "plain"]
    assert set(verdicts(finished).values()) <= {Verdict.PASS, Verdict.SKIP}
    for name in ("Hangs", "Plain"):
        first = next(record for record in found if record.model == name)
        assert (first.verdict, first.evidence.kind) == (Verdict.ERROR, "Interrupted")


def test_stopping_before_anything_is_known_says_so():
    with Processes(stop=lambda: True) as processes, pytest.raises(InterruptedRunError):
        expand(processes, [good()])


def test_the_server_greets_with_its_checks_before_it_is_asked_for_anything():
    with Processes() as processes:
        greeting = processes.greeting()
        assert [tuple(texts) for texts in greeting] == laws()
        assert processes.greeting() == greeting


def test_a_server_that_dies_or_is_not_waited_for_greets_nobody():
    with Processes() as processes:
        processes._server.kill()
        processes._server.wait()
        assert processes.greeting() == []
        assert processes.run([{"job": "expand", "spec": good()}], lambda index, message: None) == [None]
    with Processes(stop=lambda: True) as processes:
        assert processes.greeting() == []


def test_a_server_that_dies_costs_what_was_not_started_only():
    class Assassin(Watcher):
        def done(self, model: str) -> None:
            if model == "plain":
                os.kill(processes._server.pid, signal.SIGKILL)
                processes._server.wait()

    with Processes() as processes:
        listed = [Listed("plain", good("plain")), Listed("Plain", good("Plain"))]
        found, _ = examine(processes, listed, OPTIONS, Assassin())
    first = verdicts([record for record in found if record.model == "plain"])
    assert set(first.values()) <= {Verdict.PASS, Verdict.SKIP}
    assert Verdict.ERROR in verdicts([record for record in found if record.model == "Plain"]).values()


def test_a_model_costs_less_than_an_import_of_torch():
    """Each further model costs a fork or two, and a fork copies no library."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    importing = time.perf_counter() - began
    options = replace(OPTIONS, only=("sample.well_formed",))
    with Processes() as processes:
        examine(processes, [Listed("first", good("plain"))], options, Watcher())  # waits for the server
        began = time.perf_counter()
        examine(processes, [Listed(str(i), good("plain")) for i in range(8)], options, Watcher())
        each = (time.perf_counter() - began) / 8
    assert each < importing / 2
