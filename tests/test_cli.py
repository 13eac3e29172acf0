"""The command line: what it says, what it leaves with, what it refuses, and what a signal leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.catalogue import every_check
from harness.cli import _status
from harness.processes import Processes
from harness.report import Report, laws_of

MODELS = Path(__file__).parent / "models_for_tests"
PLAIN, SHIFTED, HANGS = f"{MODELS}/good.py:Plain", f"{MODELS}/good.py:Shifted", f"{MODELS}/hostile.py:Hangs"
CHEAP = ("--only", "sample.well_formed", "--effort", "quick")


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness.cli", *arguments]


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


# ---------------------------------------------------------------------------------------------------- speed


def test_help_answers_in_half_a_second():
    """On a machine that starts Python in 50 ms; on a slower or busier one the limit grows in proportion."""
    bare = min(seconds([sys.executable, "-c", "pass"]) for _ in range(3))
    helped = min(seconds(program("--help")) for _ in range(3))
    assert helped < 0.5 * max(1.0, bare / 0.05)


@pytest.mark.parametrize("heavy", ["torch", "numpy", "pandas", "harness.checks"])
def test_help_imports_nothing_heavy(heavy):
    code = (
        f"import sys; from harness.cli import _status; _status(['check', '--help']); sys.exit({heavy!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_check_imports_torch_in_the_server_only(tmp_path):
    arguments = ["check", PLAIN, "--effort", "quick", "--html", str(tmp_path / "run.html")]
    code = (
        f"import sys; from harness.cli import _status; status = _status({arguments!r}); "
        f"print(status, [name for name in ('torch', 'numpy', 'scipy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_the_report_explains_its_laws_as_the_checks_do(tmp_path):
    assert _status(["check", PLAIN, "--effort", "quick", "--json", str(tmp_path / "run.json")]) == 0
    found = Report.read(tmp_path / "run.json")
    assert found.laws == laws_of(found.records)
    assert set(found.laws) == {record.check for record in found.records}


# -------------------------------------------------------------------------------------------------- answers


def test_check_passes_a_good_model_and_writes_every_file(tmp_path, capsys):
    files = [tmp_path / name for name in ("run.json", "run.xml", "run.html")]
    options = [str(part) for pair in zip(("--json", "--junit", "--html"), files, strict=True) for part in pair]
    assert _status(["check", PLAIN, *CHEAP, *options]) == 0
    out, err = capsys.readouterr()
    assert "[1/1] Plain" in err
    assert all(str(path) in out for path in files)
    assert "probability 1e-06 at most" in " ".join(out.split())
    report = Report.read(files[0])
    assert report.models == ("Plain",)
    assert "Plain" in files[1].read_text()
    assert "<html" in files[2].read_text()


def test_check_fails_a_broken_model_and_shows_how_to_see_it_again(tmp_path, capsys):
    only = ["--only", "sampler.bridge", "--effort", "quick"]
    assert _status(["check", SHIFTED, PLAIN, *only, "--json", str(tmp_path / "run.json")]) == 1
    out = capsys.readouterr().out
    command = f"harness check {SHIFTED} --only sampler.bridge --seed 0 --effort quick"
    assert command in " ".join(out.split())
    assert Report.read(tmp_path / "run.json").failures[0].model == "Shifted"
    assert _status(command.split()[1:]) == 1


def test_checks_explain_and_models_list_what_there_is(capsys):
    assert _status(["checks"]) == 0
    listed = capsys.readouterr().out
    assert _status(["checks", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [check.id for check in every_check()]
    for check in every_check():
        assert check.id in listed
        assert _status(["explain", check.id]) == 0
        told = capsys.readouterr().out
        assert check.law in " ".join(told.split())
        assert "Tolerance" in told


def test_models_are_listed_by_family_with_what_they_can_do(capsys):
    assert _status(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    row = rows["gaussian.correlated"]
    assert row["spec"] == "reference_impls.gaussian:correlated"
    assert (row["number"], row["family"], row["preset"]) == ("M01", "multivariate Gaussian", "correlated")
    assert {"sample", "log_prob", "fit"} <= set(row["capabilities"])
    assert [row["name"] for row in rows.values() if row["error"]] == []
    assert _status(["models"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in rows)
    assert "M01 multivariate Gaussian" in listed


def test_report_shows_stored_results(tmp_path, capsys):
    stored, page = tmp_path / "run.json", tmp_path / "page.html"
    assert _status(["check", PLAIN, *CHEAP, "--json", str(stored)]) == 0
    capsys.readouterr()
    assert _status(["report", str(stored), "--html", str(page)]) == 0
    assert "Plain" in capsys.readouterr().out
    assert "<html" in page.read_text()


# ------------------------------------------------------------------------------------------------ pyproject


def configured(folder: Path, table: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.harness]\n{table}")


def test_without_spec_the_table_in_pyproject_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    head = f'models = ["{SHIFTED}", "{PLAIN}"]\neffort = "quick"\nonly = ["sampler.bridge"]\n'
    configured(tmp_path, head + 'expected_failures.Shifted = {"sampler.bridge" = "issue 12"}\n')
    assert _status(["check", "--json", "run.json"]) == 0
    report = Report.read("run.json")
    assert report.run.effort.name == "quick"
    assert [(record.model, record.expected) for record in report.met] == [("Shifted", "issue 12")]
    configured(tmp_path, head + 'expected_failures = {"sampler.bridge" = "issue 12"}\n')
    assert _status(["check"]) == 1  # the good model was expected to fail, and does not
    assert "remove the expectation" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("models = []", "is empty"),
        ("", "is empty"),
        ("models = 'x:y'", "not of type list"),
        ("models = [3]", "holds 3, not a string"),
        ("models = ['x:y']\nefort = 'quick'", "did you mean 'effort'?"),
        ("models = ['x:y']\nseed = '1'", "not of type int"),
        ("models = ['x:y']\nseed = true", "not of type int"),
        ("models = ['x:y']\nworkers = 0", "above 0"),
        ("models = ['x:y']\nexpected_failures = {a = ''}", "has no reason"),
        ("models = ['x:y'", "cannot read pyproject.toml"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, monkeypatch, capsys, table, said):
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, table)
    assert_refused(["check"], said, capsys)


def test_without_spec_and_without_table_there_is_nothing_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert_refused(["check"], "give a SPEC", capsys)
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")
    assert_refused(["check"], "no model is named and pyproject.toml has no table [tool.harness]: give a SPEC", capsys)


# ------------------------------------------------------------------------------------------------ bad calls


def assert_refused(arguments: list[str], said: str, capsys) -> None:
    assert _status(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    last = err.splitlines()[-1]
    assert last.startswith("harness: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget", "-1"], "--budget is -1.0"),
        (["--budget", "nan"], "--budget is nan"),
        (["--timeout", "0"], "--timeout is 0.0"),
        (["--timeout", "inf"], "--timeout is inf"),
        (["--memory", "-4"], "--memory is -4.0"),
        (["--workers", "0"], "--workers is 0"),
        (["--workers", "two"], "--workers"),
        (["--alpha", "0"], "--alpha is 0.0"),
        (["--alpha", "1"], "--alpha is 1.0"),
        (["--alpha", "nan"], "--alpha is nan"),
        (["--effort", "huge"], "choose one of quick, standard, thorough"),
        (["--device", "tpu"], "choose one of cpu, cuda"),
        (["--dtype", "int8"], "choose one of float32, float64"),
        (["--nonsense"], "--nonsense"),
        (["--json", "no/such/folder/run.json"], "cannot write no/such/folder/run.json: the folder"),
        (["--html", "."], "it is a folder"),
        (["--json", "same.file", "--html", "same.file"], "would overwrite"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_run(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    assert_refused(["check", PLAIN, *options], said, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", f"{MODELS}/good.py:plian"], "did you mean 'plain'"),
        (["check", f"{MODELS}/good.py:empty"], "is empty"),
        (["check", f"{MODELS}/good.py:number"], "is no model"),
        (["check", PLAIN, f"{MODELS}/import_fails.py:x"], "a_package_that_nobody_has"),
        (["check", PLAIN, PLAIN], "is given twice"),
        (["check", PLAIN, "--only", "density.bridge_mas"], "did you mean 'density.bridge_mass'"),
    ],
)
def test_a_spec_that_names_no_model_leaves_files_as_they_were(tmp_path, capsys, arguments, said):
    kept = tmp_path / "run.json"
    kept.write_text("of yesterday")
    assert_refused([*arguments, "--json", str(kept)], said, capsys)
    assert kept.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("", "truncated"),
        ('{"schema_version": "1.0", "records": [', "truncated"),
        ('{"schema_version": "0.0"}', "schema version '0.0'"),
        ("[1, 2]", "no report"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused(tmp_path, capsys, content, said):
    stored, page = tmp_path / "run.json", tmp_path / "page.html"
    if content is not None:
        stored.write_text(content)
    assert_refused(["report", str(stored), "--html", str(page)], said, capsys)
    assert not page.exists()


def test_a_report_does_not_overwrite_its_result(tmp_path, capsys):
    stored = tmp_path / "run.json"
    assert _status(["check", PLAIN, *CHEAP, "--json", str(stored)]) == 0
    before = stored.read_text()
    capsys.readouterr()
    assert_refused(["report", str(stored), "--html", str(stored)], "would overwrite", capsys)
    assert stored.read_text() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "model.py:Model", "--json", "model.py"],
        ["bench", "model.py:Model", "--json", "./model.py"],
        ["bench", "model.py:Model", "--data", "x.npy", "--json", "x.npy"],
        ["compare", "model.py:Model[0]", "--data", "x.npy", "--fresh", "--json", "model.py"],
        ["compare", "model.py:Model", "--data", "x.npy", "--html", "x.npy"],
        ["regressions", "history", "--json", "history/machine/run.json"],
    ],
)
def test_no_output_is_written_over_what_the_call_reads(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "history" / "machine").mkdir(parents=True)
    files = [tmp_path / name for name in ("model.py", "x.npy", "history/machine/run.json")]
    for file in files:
        file.write_text("mine")
    assert_refused(arguments, "which is read: name another file", capsys)
    assert [file.read_text() for file in files] == ["mine"] * 3


def test_explaining_an_unknown_check_suggests_a_close_one(capsys):
    assert_refused(["explain", "density.bridge_mas"], "did you mean 'density.bridge_mass'", capsys)


# -------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_finished(tmp_path, number):
    """The good model is through, the other one hangs: the signal ends the run, and all files are written."""
    stored, page = tmp_path / "run.json", tmp_path / "page.html"
    options = ["--only", "log_prob", "--effort", "quick", "--timeout", "3600"]
    files = ["--json", str(stored), "--html", str(page)]
    process = subprocess.Popen(
        program("check", PLAIN, HANGS, *options, *files),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if line.startswith("[1/2] Plain"):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: what was finished is kept" in out
    report = Report.read(stored)
    assert page.exists()
    assert not report.passed
    plain = [record for record in report.records if record.model == "Plain"]
    assert {record.verdict for record in plain} <= {"PASS", "SKIP"}
    (error,) = report.errors
    assert (error.model, error.evidence.kind) == ("Hangs", "Interrupted")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_nothing_survives_a_command_line_that_is_killed(tmp_path):
    """SIGKILL leaves no time to clean up; the server and the wardens see that nobody listens any more."""
    process = subprocess.Popen(program("check", HANGS, "--timeout", "3600"), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("examining"):
            break
    time.sleep(1.0)  # into the hang, or before it: either must end
    family = descendants(process.pid)
    assert family
    process.kill()
    process.wait()
    limit = time.monotonic() + 30
    while any(alive(pid) for pid in family):
        assert time.monotonic() < limit, "a process outlived the command line"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_leaves_no_descriptor_open():
    before = len(os.listdir("/proc/self/fd"))
    with Processes(workers=2) as processes:
        processes.run([{"job": "expand", "spec": PLAIN} for _ in range(5)], lambda index, message: None)
    assert len(os.listdir("/proc/self/fd")) == before
