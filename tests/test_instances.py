"""A model at several seeds and on several devices is examined several times in one run, with one budget of false
alarms, and every face says which of them a verdict is about."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import fromstring

import jsonschema
import pytest

from harness import store
from harness.calls import check_cuda, devices_in, in_words, seeds_in
from harness.cli import _status
from harness.effort import EFFORTS, Settings
from harness.errors import CallError
from harness.evidence import Estimated, Exact, Record, Verdict, instance_name
from harness.html import fragment, matrix_rows, render
from harness.isolate import Listed, Options, Unwatched, crossed, examine
from harness.junit import junit_xml
from harness.processes import Processes
from harness.report import Report, merge
from harness.verify import verify

GOOD = Path(__file__).parent / "models_for_tests" / "good.py"
PLAIN, SHIFTED = f"{GOOD}:Plain", f"{GOOD}:Shifted"
CHEAP = ("--only", "sampler.bridge", "--effort", "quick")
INSTANCES = ("Plain (seed 0)", "Plain (seed 1)", "Shifted (seed 0)", "Shifted (seed 1)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one run of two models at two seeds, and of the same run by three workers."""
    made = tmp_path_factory.mktemp("runs")
    for name, more in (("one", ["--workers", "1"]), ("three", ["--workers", "3"])):
        assert _status(["check", PLAIN, SHIFTED, "--seed", "0,1", *CHEAP, *more, "--json", f"{made}/{name}.json"]) == 1
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return Report.read(folder / "one.json")


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes() as running:
        yield running


# ------------------------------------------------------------------------------------------------ the call


@pytest.mark.parametrize(
    ("given", "seeds"), [(3, (3,)), ("3", (3,)), ("0, 1,12", (0, 1, 12)), ([2, 0], (2, 0)), ((5,), (5,)), ("007", (7,))]
)
def test_seeds_are_a_number_a_list_or_numbers_between_commas(given, seeds):
    assert seeds_in(given) == seeds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("-1", "--seed is '-1': give a whole number of 0 or more"),
        (-1, "--seed is -1: give a whole number"),
        ("1.5", "--seed is '1.5'"),
        ("one", "--seed is 'one'"),
        (True, "--seed is True"),
        ([0, "²"], "--seed is '²'"),
        ("0,,1", "empty entry"),
        ("", "empty entry"),
        ([], "empty entry"),
        ("0,1,0", "--seed names 0 twice: leave one out"),
        ("1,01", "--seed names 1 twice"),
    ],
)
def test_what_names_no_seeds_is_refused(given, said):
    with pytest.raises(CallError, match=re.escape(said)):
        seeds_in(given)


def test_devices_are_known_and_different():
    assert devices_in("cpu") == ("cpu",)
    assert devices_in("cuda, cpu") == ("cuda", "cpu") == devices_in(["cuda", "cpu"])
    for given, said in (("gpu", "choose one of cpu, cuda"), ("cpu,", "empty entry"), ("cpu,cpu", "names cpu twice")):
        with pytest.raises(CallError, match=said):
            devices_in(given)


def test_cuda_where_there_is_none_is_one_line_whatever_stands_beside_it(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert _status(["check", PLAIN, "--device", "cpu,cuda"]) == 2
    assert "harness: --device is cuda, but torch finds no CUDA device" in capsys.readouterr().err
    check_cuda(("cpu",))
    check_cuda(("cpu", "cuda"), scheduler="tcp://elsewhere:1")  # whose workers are asked
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_cuda(("cpu", "cuda"))


def test_a_run_is_every_model_on_every_device_at_every_seed():
    models = [Listed("a", "x:a"), Listed("b", "x:b")]
    assert list(crossed(models, (3,), ("cpu",))) == models  # what there is one of, the run says
    grid = crossed(models, (0, 1), ("cpu", "cuda"))
    assert [each.instance for each in grid[:5]] == [
        *("a (seed 0, cpu)", "a (seed 1, cpu)", "a (seed 0, cuda)", "a (seed 1, cuda)", "b (seed 0, cpu)")
    ]
    assert len({(each.spec, each.seed, each.device) for each in grid}) == 8
    assert [each.instance for each in crossed(models[:1], (7,), ("cpu", "cuda"))] == ["a (cpu)", "a (cuda)"]
    assert in_words(1, (0,), ("cpu",)) == "1 model"
    assert in_words(2, (0, 1), ("cpu", "cuda")) == "2 models at 2 seeds on cpu and cuda"


# ------------------------------------------------------------------------------------------------- the run


def test_every_record_says_its_seed(report: Report):
    assert (report.run.seed, report.run.device) == ((0, 1), "cpu")
    assert report.models == ("Plain", "Shifted")
    assert report.instances == INSTANCES
    assert {(r.instance, r.verdict) for r in report.records if r.check == "sampler.bridge"} == {
        *((name, Verdict.PASS) for name in INSTANCES[:2]),
        *((name, Verdict.FAIL) for name in INSTANCES[2:]),
    }
    frame = report.to_frame()
    assert sorted(set(zip(frame["model"], frame["seed"], frame["device"], strict=True))) == [
        (model, seed, "cpu") for model in report.models for seed in (0, 1)
    ]


def test_an_instance_sees_the_draws_of_its_seed_at_its_share_of_one_budget(report: Report, tmp_path: Path):
    assert _status(["check", PLAIN, "--seed", "1", *CHEAP, "--json", f"{tmp_path}/alone.json"]) == 0
    alone = Report.read(tmp_path / "alone.json")
    seen = {r.instance: r for r in report.records if r.check == "sampler.bridge"}
    (own,) = (r for r in alone.records if r.check == "sampler.bridge")
    assert seen["Plain (seed 1)"].evidence == own.evidence != seen["Plain (seed 0)"].evidence
    assert all(math.isclose(record.alpha, own.alpha / len(INSTANCES), rel_tol=1e-12) for record in seen.values())


def test_a_reproducer_has_the_seed_of_its_instance(report: Report):
    commands = {r.instance: r.reproducer.command for r in report.failures if r.reproducer}
    assert " --seed 1 " in commands["Shifted (seed 1)"]
    assert " --seed 0 " in commands["Shifted (seed 0)"]


def test_the_result_does_not_depend_on_the_number_of_workers(folder: Path):
    one, three = (json.loads((folder / f"{name}.json").read_text())["records"] for name in ("one", "three"))
    timeless = [[{**record, "seconds": 0} for record in records] for records in (one, three)]
    assert timeless[0] == timeless[1]


def test_a_run_of_one_seed_is_written_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A list of one, in the file or in the call, is that one; nothing in the JSON tells them apart."""
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(
        f'[tool.harness]\nmodels = ["{PLAIN}"]\neffort = "quick"\nonly = ["log_prob"]\nseed = [4]\ndevice = ["cpu"]\n'
    )
    written = []
    for arguments in ([PLAIN, "--seed", "4", "--only", "log_prob", "--effort", "quick"], []):
        assert _status(["check", *arguments, "--json", "run.json"]) == 0
        data = json.loads(Path("run.json").read_text())
        data["run"] |= {"started": "", "seconds": 0, "command": ""}
        written.append({**data, "records": [{**record, "seconds": 0} for record in data["records"]]})
    assert written[0] == written[1]
    assert (written[0]["run"]["seed"], written[0]["run"]["device"]) == (4, "cpu")
    assert not {"seed", "device"} & set(written[0]["records"][0])


def test_a_device_that_is_not_there_costs_its_own_instance(processes: Processes):
    """Nothing but the request knows of the device: elsewhere than on this machine it may be there."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    options = Options("quick", 0, 1e-6, only=("sample.well_formed",))
    records, _ = examine(processes, crossed([Listed("Plain", PLAIN)], (0,), ("cpu", "cuda")), options, Unwatched())
    assert {(r.instance, r.verdict) for r in records} == {
        ("Plain (cpu)", Verdict.PASS),
        ("Plain (cuda)", Verdict.ERROR),
    }
    assert [r.device for r in records] == ["cpu", "cuda"]


# --------------------------------------------------------------------------------------------- the certificate


def test_a_certificate_is_verified_at_every_seed(folder: Path, processes: Processes):
    outcome = verify(folder / "one.json", share=1.0, seed=0, processes=processes)
    assert outcome.differences == ()
    assert {name for name, _ in outcome.repeated} == set(INSTANCES)


def test_records_that_say_another_seed_are_found_out(report: Report, processes: Processes, tmp_path: Path):
    """The evidence of seed 0 under the name of seed 1 follows from itself, but is not made again."""
    swapped = tuple(replace(r, seed=1 - r.seed) for r in report.records if r.seed is not None)
    replace(report, records=swapped).to_json(tmp_path / "swapped.json")
    outcome = verify(tmp_path / "swapped.json", share=1.0, seed=0, processes=processes)
    assert any(line.startswith("Plain (seed 1)::sampler.bridge: stored") for line in outcome.differences)


def test_what_was_made_on_a_device_that_is_not_here_is_judged_again(
    report: Report, processes: Processes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    halves = {0: "cpu", 1: "cuda"}
    moved = tuple(replace(r, seed=None, device=halves[r.seed]) for r in report.records if r.seed is not None)
    run = replace(report.run, seed=0, device=("cpu", "cuda"))
    replace(report, records=moved, run=run).to_json(tmp_path / "both.json")
    outcome = verify(tmp_path / "both.json", share=1.0, seed=0, processes=processes)
    assert outcome.differences == ()
    assert {name for name, _ in outcome.repeated} == {"Plain (cpu)", "Shifted (cpu)"}
    assert any(note.startswith("cuda is not here") for note in outcome.notes)


def test_less_than_its_share_of_the_budget_is_none_of_an_instance(report: Report, processes: Processes, tmp_path: Path):
    """Half a share would do for one of eight instances, but these are four."""
    spent = tuple(replace(r, alpha=r.alpha / 2) if isinstance(r.evidence, Estimated) else r for r in report.records)
    replace(report, records=spent).to_json(tmp_path / "spent.json")
    outcome = verify(tmp_path / "spent.json", share=0.01, seed=0, processes=processes)
    assert sum("its share of 1e-06 is at least" in line for line in outcome.differences) > 0


# ---------------------------------------------------------------------------------------------- the JSON


def test_the_file_conforms_to_its_schema_and_comes_back(report: Report):
    data = json.loads(store.dumps(report))
    jsonschema.Draft202012Validator(store.schema()).validate(data)
    assert data["schema_version"] == "1.1"
    assert data["run"]["seed"] == [0, 1]
    assert list(data["records"][0])[:4] == ["model", "seed", "check", "verdict"]
    assert store.loads(store.dumps(report)) == report


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["records"][1].pop("seed"), r"records\[1\].seed is None, which the run does not have"),
        (lambda d: d["records"][1].update(seed=2), r"records\[1\].seed is 2"),
        (lambda d: d["records"][1].update(device="cuda"), r"records\[1\].device is 'cuda'"),
        (lambda d: d["run"].update(seed=[0]), r"run.seed is neither one nor several"),
        (lambda d: d["run"].update(seed=[0, 1, 1]), r"run.seed is neither one nor several"),
        (lambda d: d["run"].update(seed=[0, 1.5]), r"run.seed\[1\] is not an integer"),
        (lambda d: d["run"].update(device=[]), r"run.device is neither one nor several"),
    ],
)
def test_a_file_whose_records_and_run_disagree_is_refused(report: Report, change, said):
    data = json.loads(store.dumps(report))
    change(data)
    with pytest.raises(ValueError, match=said):
        store.loads(json.dumps(data))


def test_results_of_before_are_still_read():
    stored = Report.read(Path(__file__).parent.parent / "results" / "demo.json")
    assert (stored.run.seeds, stored.run.devices, stored.instances) == ((0,), ("cpu",), stored.models)


# ----------------------------------------------------------------------------------------------- the faces


def made(model: str, seed: int | None, device: str, *, ok: bool = True) -> Record:
    verdict = Verdict.PASS if ok else Verdict.FAIL
    seen = Exact(0.0 if ok else 1.0, 0.5, 1)
    return Record(model, "a.b", verdict, seen, 1e-7, 0.5, "seen", seed=seed, device=device)


def report_of(*records: Record, **more: object) -> Report:
    seeds = tuple(dict.fromkeys(r.seed for r in records if r.seed is not None)) or 0
    devices = tuple(dict.fromkeys(r.device for r in records if r.device)) or "cpu"
    return Report.of(records, Settings(EFFORTS["quick"]), alpha=1e-6, seed=seeds, device=devices, laws={}, **more)  # type: ignore[arg-type]


BOTH = [made("m", seed, device, ok=device == "cpu") for device in ("cpu", "cuda") for seed in (0, 1)]
NAMES = ["m (seed 0, cpu)", "m (seed 1, cpu)", "m (seed 0, cuda)", "m (seed 1, cuda)"]


def test_an_instance_is_named_by_what_there_are_several_of():
    assert instance_name("m", None, "") == "m"
    assert instance_name("m", 0, "") == "m (seed 0)"
    assert instance_name("m", None, "cuda") == "m (cuda)"
    assert [record.instance for record in BOTH] == NAMES


def test_the_terminal_has_a_row_for_each_instance_and_names_them_all():
    text = str(report_of(*BOTH))
    assert all(sum(line.strip().startswith(name) for line in text.splitlines()) == 1 for name in NAMES)
    assert "FAIL m (seed 1, cuda) a.b: seen" in text
    assert "seeds 0, 1, cpu and cuda, false alarms" in text
    assert "effort quick, seed 0, false alarms" in str(report_of(made("m", None, "")))


def test_junit_has_a_suite_for_each_instance_with_its_seed_and_device():
    suites = fromstring(junit_xml(report_of(*BOTH)).partition("\n")[2])
    assert [suite.get("name") for suite in suites] == NAMES
    facts = [{item.get("name"): item.get("value") for item in suite.iter("property")} for suite in suites]
    assert [(fact["seed"], fact["device"]) for fact in facts] == [
        ("0", "cpu"),
        ("1", "cpu"),
        ("0", "cuda"),
        ("1", "cuda"),
    ]
    assert [suite.get("failures") for suite in suites] == ["0", "0", "1", "1"]


def test_the_page_has_a_row_for_each_instance():
    report = report_of(*BOTH)
    assert [row.name for row in matrix_rows([report])] == NAMES
    page = render(report)
    assert "seeds <b>0, 1</b>" in page
    assert "<b>cpu, cuda</b>" in page
    assert '"seed":"1","device":"cuda"' in page
    assert all(name in fragment(report) for name in NAMES)


@pytest.mark.parametrize(
    ("expected", "met", "passes"),
    [
        ({"m (cuda)::a.b": "why"}, 2, True),
        ({"m (seed 0, cuda)::a.b": "why", "m (seed 1, cuda)::a.b": "why"}, 2, True),
        ({"m (seed 0, cuda)::a.b": "why"}, 1, False),  # the other one fails as nobody expected
        ({"m::a.b": "why"}, 2, False),  # it was expected on the CPU, too
        ({"m (seed 2, cuda)::a.b": "why"}, 0, False),
    ],
)
def test_failures_are_expected_of_a_model_of_a_device_or_of_one_instance(expected, met, passes):
    report = report_of(*BOTH, expected_failures=expected)
    assert (len(report.met), report.passed) == (met, passes)


def test_runs_are_merged_by_instance():
    first, second = report_of(*BOTH), report_of(*BOTH)
    with pytest.raises(ValueError, match=r"m \(seed 0, cpu\)::a.b is in two of these reports"):
        merge([first, second])
