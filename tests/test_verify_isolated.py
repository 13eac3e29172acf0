"""A model that hangs, leaves or crashes while its certificate is verified costs its own line, and nobody else's.

The certificate is true when it is written; then the author's file changes. Processes are real, and really killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.effort import EFFORTS, FALSE_ALARM_BUDGET
from harness.isolate import Options, Unwatched, examine, expand
from harness.processes import Processes
from harness.report import Report
from harness.run import Settings
from harness.verify import Verification, verify

TIMEOUT = 5.0
ONLY = ("sample.well_formed", "log_prob")
SOURCE = """
import ctypes, os, sys, time
import torch

class Good:
    def sample(self, n, *, generator):
        return torch.randn(n, generator=generator)

    def log_prob(self, x):
        return torch.distributions.Normal(0.0, 1.0).log_prob(x)

class Changed(Good):
    def log_prob(self, x):
        {before}
        return super().log_prob(x)

models = [Good, Changed]
"""


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(timeout=TIMEOUT) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("author")
    (folder / "models.py").write_text(SOURCE.format(before="pass"))
    models = expand(processes, [f"{folder / 'models.py'}:models"])
    records, _ = examine(processes, models, Options("quick", 0, FALSE_ALARM_BUDGET, only=ONLY), Unwatched())
    report = Report.of(
        records,
        Settings(EFFORTS["quick"]),
        alpha=FALSE_ALARM_BUDGET,
        specs={model.name: model.spec for model in models},
    )
    report.to_json(folder / "certificate.json")
    return folder / "certificate.json"


def after(certificate: Path, before: str, processes: Processes) -> Verification:
    """All checks made again, once log_prob of the second model begins with that."""
    (certificate.parent / "models.py").write_text(SOURCE.format(before=before))
    return verify(certificate, share=1.0, seed=0, processes=processes)


def test_a_true_certificate_agrees(certificate: Path, processes: Processes):
    outcome = after(certificate, "pass", processes)
    assert outcome.differences == ()
    assert {model for model, _ in outcome.repeated} == {"Good", "Changed"}


ENDS = {
    "while True: time.sleep(0.01)": "Hung: no progress for 5 s during log_prob.well_formed",
    "os._exit(3)": "Died: left its process with exit status 3 during log_prob.well_formed",
    "ctypes.string_at(0)": "Died: killed by SIGSEGV during log_prob.well_formed",
    "os.kill(os.getpid(), 9)": "Died: killed by SIGKILL during log_prob.well_formed",
}


@pytest.mark.parametrize("before", ENDS)
def test_a_model_that_takes_its_process_down_costs_one_line(certificate: Path, processes: Processes, before: str):
    outcome = after(certificate, before, processes)
    (line,) = outcome.differences
    total = sum(model == "Changed" for model, _ in outcome.repeated)
    assert line.startswith(f"Changed: {total - 1} of {total} checks could not be made again: {ENDS[before]}")
    assert outcome.status == 1


def test_a_model_that_exits_differs_check_by_check_since_its_process_goes_on(certificate: Path, processes: Processes):
    outcome = after(certificate, "sys.exit(3)", processes)
    assert outcome.differences[0].startswith("Changed::log_prob.well_formed: stored PASS")
    assert "the model called sys.exit(3)" in outcome.differences[0]
    assert all(line.startswith("Changed::") for line in outcome.differences)


def test_a_file_that_cannot_be_imported_any_more_costs_the_same(certificate: Path, processes: Processes):
    (certificate.parent / "models.py").write_text("import os\nos._exit(1)\n")
    outcome = verify(certificate, share=1.0, seed=0, processes=processes)
    assert [line.partition(":")[0] for line in outcome.differences] == ["Good", "Changed"]
    assert all("exit status 1 while being imported" in line for line in outcome.differences)


def test_a_spec_that_names_nothing_any_more_is_one_line_that_says_so(certificate: Path, processes: Processes):
    (certificate.parent / "models.py").write_text("model = None\n")
    with pytest.raises(ValueError, match="models"):
        verify(certificate, share=1.0, seed=0, processes=processes)


def command(certificate: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "harness.cli", "verify", str(certificate), *options]


def test_the_command_has_a_time_limit_and_shows_its_progress(certificate: Path):
    (certificate.parent / "models.py").write_text(SOURCE.format(before="time.sleep(1000)"))
    done = subprocess.run(
        command(certificate, "--timeout", "2"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 1)  # by chance, the subset may leave that model out
    assert "making a part of" in done.stderr
    assert "Traceback" not in done.stderr
    assert ("no progress for 2 s" in done.stdout) is (done.returncode == 1)


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(certificate: Path, timeout: str):
    done = subprocess.run(
        command(certificate, "--timeout", timeout), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--timeout is" in done.stderr


def test_ctrl_c_ends_a_verification_with_one_line(certificate: Path):
    (certificate.parent / "models.py").write_text("import time\ntime.sleep(1000)\n")
    process = subprocess.Popen(command(certificate), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "making a part of" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("harness: interrupted before")
    assert "Traceback" not in said
