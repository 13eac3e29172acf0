"""The history of speed: asv finds and runs the benchmarks; what is kept names no path, merges, and goes on."""

import itertools
import json
import math
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.bench.attribute import judged
from harness.bench.history import read
from harness.streams import generator
from suites import asv_store, history
from suites.history import Case, cases_of, useful
from suites.speed.tracked import measures, models

ROOT = Path(__file__).parents[2]
FACTS = {"name": "python-3-11", "python": "3.11", "torch": "2.13.0"}
FAST = r"Quality.*'discrete.coin', 'float32'|Statistic.*BoundedMean', 1024|LogProb.*discrete.die', 16, 'float32'"
pytest.importorskip("asv")


# --------------------------------------------------------------------------------------------- asv itself


def test_asv_check_and_a_run_of_some_cases(tmp_path):
    """Every module of the folder can be imported by asv, every benchmark has its arguments, and three kinds run."""
    os_environ = {**os.environ, **history.ONE_THREAD}
    call = [sys.executable, "-m", "asv", "check", "--environment", f"existing:{sys.executable}"]
    checked = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env=os_environ)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "No problems found" in checked.stdout
    folder = tmp_path / "kept"
    arguments = ["--full", "--only", FAST, "--results", str(folder), "--no-publish"]
    assert history.main(arguments) == 0
    (file,) = set(folder.glob("*/*.json")) - set(folder.glob("*/machine.json"))
    assert_without_paths(folder)
    found = {series.benchmark: series for series in read(folder).series}
    assert set(found) == {
        *("models.Quality.track_perplexity", "examiner.Statistic.track_seconds"),
        *("models.LogProb.track_seconds", "models.LogProb.track_peak_bytes"),
    }
    assert {series.metric for series in found.values()} == {"time", "memory", "nll"}
    assert all(point.usable for series in found.values() for point in series.points)
    told = json.loads(file.read_text())
    assert file.name == f"{told['commit_hash'][:8]}-{told['env_name']}.json"


def assert_without_paths(folder):
    home, user = Path.home(), os.environ.get("USER", "")
    for file in folder.rglob("*.json"):
        text = file.read_text()
        for word in filter(None, (str(ROOT), str(home), sys.prefix, str(folder), "/tmp", os.uname().nodename)):
            assert word not in text, (file.name, word)
        assert user in ("", "root") or f"/{user}/" not in text


def test_environments_of_asv_have_the_pinned_versions_and_what_each_commit_itself_depends_on():
    told = json.loads((ROOT / "asv.conf.json").read_text())
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split("\n") if "==" in line)
    assert told["matrix"]["req"] == {"torch": [pins["torch"]]}  # in the names of the results
    (install,) = told["install_command"]
    assert "-c {conf_dir}/constraints.txt" in install
    assert "--no-deps" not in install


# ------------------------------------------------------------------------------------------------ the store


def result(cells, version="1", benchmark="b.B.track", commit="c" * 40):
    """A file as asv leaves it, with the path of an interpreter in it; cells is {setting: value}."""
    axes = [list(dict.fromkeys(axis)) for axis in zip(*cells, strict=True)]
    values = [cells.get(setting, math.nan) for setting in itertools.product(*axes)]
    row = [values, axes, version, 1, 0.5, *[None] * 6, [None if v != v else [v, v, v] for v in values]]
    path = "/home/someone/venv/bin/python"
    told = {
        **{"commit_hash": commit, "env_name": f"existing-py{path}", "date": 1, "python": path, "env_vars": {}},
        **{"params": {**asv_store.asv_machine(), "python": path}, "requirements": {}, "durations": {}, "version": 2},
    }
    return {**told, "result_columns": list(asv_store.COLUMNS), "results": {benchmark: row}}


def kept(told):
    return {(b, setting): cell["result"] for b, _, setting, cell in asv_store.cells(told)}


def test_cells_of_two_runs_are_merged_and_the_new_one_counts():
    old = result({("'a'", "1"): 1.0, ("'a'", "2"): 2.0})
    new = result({("'a'", "2"): 3.0, ("'b'", "2"): 4.0})
    once = asv_store.merged(None, old, FACTS)
    told = asv_store.merged(once, new, FACTS)
    assert kept(told) == {
        ("b.B.track", ("'a'", "1")): 1.0,
        ("b.B.track", ("'a'", "2")): 3.0,
        ("b.B.track", ("'b'", "2")): 4.0,
    }
    assert "someone" not in json.dumps(told)
    samples = {setting: cell["samples"] for _, _, setting, cell in asv_store.cells(told)}
    assert samples["'a'", "2"] == [3.0, 3.0, 3.0]


def test_what_failed_stays_and_what_does_not_apply_is_left_out():
    told = asv_store.merged(None, result({("1",): None, ("2",): math.nan, ("3",): 5.0}), FACTS)
    assert kept(told) == {("b.B.track", ("1",)): None, ("b.B.track", ("3",)): 5.0}
    json.dumps(told, allow_nan=False)  # no hole: strict


def test_another_version_of_a_benchmark_replaces_all_of_it():
    old = asv_store.merged(None, result({("1",): 1.0, ("2",): 2.0}), FACTS)
    told = asv_store.merged(old, result({("2",): 9.0}, version="2"), FACTS)
    assert kept(told) == {("b.B.track", ("2",)): 9.0}


def test_only_numbers_of_the_present_version_are_done(tmp_path):
    file = tmp_path / "f.json"
    assert asv_store.done(file, {"b.B.track": "1"}) == set()
    file.write_text(json.dumps(asv_store.merged(None, result({("1",): 1.0, ("2",): None}), FACTS)))
    assert asv_store.done(file, {"b.B.track": "1"}) == {("b.B.track", ("1",))}
    assert asv_store.done(file, {"b.B.track": "2"}) == set()


def _kept_by_a_process(folder, number):
    source = folder / f"source{number}"
    home = source / "m"
    home.mkdir(parents=True)
    (home / "machine.json").write_text("{}")
    (source / "benchmarks.json").write_text("{}")
    for i in range(10):
        (home / "x.json").write_text(json.dumps(result({(f"{number}", f"{i}"): 1.0})))
        asv_store.keep(source, folder / "kept", FACTS)


def test_two_at_once_lose_nothing(tmp_path):
    """Each of two processes adds ten cells to one file, one at a time."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_kept_by_a_process, args=(tmp_path, number)) for number in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    told = json.loads(asv_store.path_of(tmp_path / "kept", "m", "c" * 40, FACTS["name"]).read_text())
    assert len(kept(told)) == 20


def test_the_name_of_a_machine_is_no_path_and_no_host():
    facts, machine = asv_store.environment(), asv_store.asv_machine()
    assert facts["name"].startswith("python-3-1")
    assert "/" not in json.dumps([facts, machine]).replace("n/a", "")
    assert os.uname().nodename not in machine["machine"]


# ------------------------------------------------------------------------------------------------ the choice


BENCHMARKS = {
    "models.LogProb.track_seconds": {
        "params": [
            ["'made.full_made'", "'made.eight_bits'", "'made.labelled_bits'"],
            *(["16", "1000"], ["'float32'"], ["'cpu'", "'cuda'"]),
        ]
    },
    "models.LogProb.track_peak_bytes": {"params": [["'made.eight_bits'"], ["1000"], ["'float32'"], ["'cpu'"]]},
    "models.Quality.track_perplexity": {"params": [["'made.eight_bits'"], ["'float32'", "'float64'"], ["'cpu'"]]},
    "digits.FitOfDigits.track_seconds": {"params": [["'MADE'"]]},
}


def test_the_useful_ones_are_all_presets_but_the_large_ones_at_one_size_and_dtype():
    chosen = [str(case) for case in useful(cases_of(BENCHMARKS, "cpu"))]
    assert chosen == [
        "models.LogProb.track_seconds('made.eight_bits', 1000, 'float32', 'cpu')",
        "models.LogProb.track_seconds('made.labelled_bits', 1000, 'float32', 'cpu')",
        "models.Quality.track_perplexity('made.eight_bits', 'float32', 'cpu')",
        "digits.FitOfDigits.track_seconds('MADE')",
    ]


def test_a_device_has_its_own_cases_and_the_processor_those_without_one():
    assert {case.setting[-1] for case in cases_of(BENCHMARKS, "cuda")} == {"'cuda'"}
    assert Case("digits.FitOfDigits.track_seconds", ("'MADE'",)) in cases_of(BENCHMARKS, "cpu")


def test_every_preset_of_the_package_is_measured():
    from importlib.metadata import entry_points

    assert sorted(each.name for each in entry_points(group="harness.models")) == models.PRESETS


def test_settings_are_those_of_the_checkout_and_a_commit_without_one_shows_it_as_not_applicable(monkeypatch):
    """asv hands a setting over by its number: commits that count others would have each other's numbers."""
    monkeypatch.setattr(measures, "entry_points", lambda **_: [])
    assert measures.presets() == models.PRESETS
    with pytest.raises(NotImplementedError, match=r"this commit has no discrete\.coin"):
        models.LogProb().setup("discrete.coin", 16, "float32", "cpu")


def test_a_wrong_call_is_told_before_anything_runs(capsys):
    with pytest.raises(SystemExit) as left:
        history.main(["--only", "("])
    assert left.value.code == 2
    assert "no regular expression" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- interruptions


MANY = {"b.B.track": {"params": [[str(i) for i in range(10)]], "version": "1"}}


@pytest.fixture
def played(monkeypatch):
    """asv is played: its benchmark has ten settings, and `asked` lists those that were measured. The tree is clean."""
    asked, trouble = [], {}

    def measure(asv, cases, commit):
        for case in cases:
            if case.setting[0] == trouble.get("at"):
                raise KeyboardInterrupt
        home = asv.results / asv.machine["machine"]
        home.mkdir(parents=True, exist_ok=True)
        (home / "machine.json").write_text(json.dumps(asv.machine))
        (asv.results / "benchmarks.json").write_text(json.dumps(MANY))
        cells = {case.setting: None if case.setting[0] == trouble.get("fails") else 1.0 for case in cases}
        (home / "any.json").write_text(json.dumps(result(cells)))
        asked.extend(case.setting[0] for case in cases)

    monkeypatch.setattr(history.Asv, "discover", lambda asv: MANY)
    monkeypatch.setattr(history.Asv, "measure", measure)
    monkeypatch.setattr(history, "_state", lambda: ("c" * 40, trouble.get("clean", True)))
    monkeypatch.setattr(history, "CHUNK", 4)
    return asked, trouble


def measured(folder, *options):
    return history.main(["--full", "--no-publish", "--results", str(folder), *options])


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, played):
    asked, trouble = played
    trouble["at"] = "6"
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path / "kept")
    assert asked == ["0", "1", "2", "3"]
    trouble.clear()
    assert measured(tmp_path / "kept") == 0
    assert asked == [str(i) for i in range(10)]
    assert measured(tmp_path / "kept") == 0  # nothing is left
    assert len(asked) == 10
    assert measured(tmp_path / "kept", "--again") == 0
    assert len(asked) == 20


def test_what_failed_is_told_and_tried_again(tmp_path, played, capsys):
    asked, trouble = played
    trouble["fails"] = "3"
    assert measured(tmp_path / "kept") == 1
    assert "FAILED b.B.track(3)" in capsys.readouterr().err
    trouble.clear()
    assert measured(tmp_path / "kept") == 0
    assert asked[10:] == ["3"]


def test_numbers_of_changed_files_are_measured_again_and_again(tmp_path, played, capsys):
    asked, trouble = played
    assert measured(tmp_path / "kept") == 0
    trouble["clean"] = False
    assert measured(tmp_path / "kept") == 0
    assert "not committed" in capsys.readouterr().out
    assert len(asked) == 20  # all were measured again


EDITED = ([("c" * 40, True), ("c" * 40, True), ("c" * 40, False)], ["t"] * 3)
COMMITTED = ([("c" * 40, True), ("c" * 40, True), ("d" * 40, True)], ["t", "t", "u"])


@pytest.mark.parametrize(("states", "trees"), [EDITED, COMMITTED], ids=["edited", "committed"])
def test_files_that_change_during_a_run_end_it(states, trees, tmp_path, played, monkeypatch, capsys):
    states, trees = iter(states), iter(trees)
    monkeypatch.setattr(history, "_state", lambda: next(states))
    monkeypatch.setattr(history, "_trees", lambda: next(trees))
    assert measured(tmp_path / "kept") == 1
    assert "changed while they were measured" in capsys.readouterr().err
    (file,) = (tmp_path / "kept").glob("*/cccc*.json")
    assert len(kept(json.loads(file.read_text()))) == 4  # the first saving, and not the second


def test_a_commit_of_other_files_during_a_run_does_not(tmp_path, played, monkeypatch):
    later = iter([("c" * 40, True)])
    monkeypatch.setattr(history, "_state", lambda: next(later, ("d" * 40, True)))
    assert measured(tmp_path / "kept") == 0
    assert list((tmp_path / "kept").glob("*/cccc*.json"))
    assert not list((tmp_path / "kept").glob("*/dddd*.json"))


# ------------------------------------------------------------------------------------------------ the measures


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_what_is_not_positive_and_finite_raises(value):
    with pytest.raises(FloatingPointError, match="not positive and finite"):
        measures.positive(value)


def test_perplexity_of_a_coin_is_that_of_its_frequencies():
    """exp(-(h log q + (1 - h) log(1 - q))) of the share h of heads that are held out; one sum in float32."""
    case = ("discrete.coin", "float32", "cpu")
    benchmark = models.Quality()
    benchmark.setup(*case)
    q, h = float(measures.preset("discrete.coin").probs), float(benchmark.x.double().mean())
    exact = math.exp(-(h * math.log(q) + (1 - h) * math.log(1 - q)))
    assert abs(benchmark.track_perplexity(*case) / exact - 1) < 4 * torch.finfo(torch.float32).eps


def test_a_worse_density_has_a_higher_perplexity():
    """On draws of p, the NLL of q is larger by KL(p, q) = 0.5 nats for a mean one deviation off; 2,000 points."""
    from torch.distributions import Normal

    from harness.adapters import adapt

    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    right, wrong = (measures.perplexity(adapt(Normal(mean, 1.0)), x) for mean in (0.0, 1.0))
    # log ratio = 0.5 - mean(x), whose deviation is 1 / sqrt(2000) = 0.022; float32 sums are off by far less
    assert abs(math.log(wrong / right) - (0.5 - float(x.mean()))) < 1e-5


def test_cuda_without_cuda_does_not_apply():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(NotImplementedError, match="CUDA"):
        models.LogProb().setup("discrete.coin", 16, "float32", "cuda")


FEWER = [name for name in models.PRESETS if not models.is_slow(name)]


def test_a_step_of_training_moves_every_player_of_every_preset_that_has_a_loss():
    """Among them a classifier, one that only fills in, one that is told a series, and games of two players."""
    stepped = set()
    for name in [*FEWER, "gan_images.full_digits"]:
        benchmark = models.Train()
        try:
            benchmark.setup(name, 16, "float32", "cpu")
        except NotImplementedError:
            continue
        before = [[p.detach().clone() for p in player.parameters] for player, _ in benchmark.moves]
        benchmark.step(benchmark.fresh(0))
        for old, (player, _) in zip(before, benchmark.moves, strict=True):
            assert any(not torch.equal(a, b) for a, b in zip(old, player.parameters, strict=True)), name
        stepped.add(name)
    trainable = {"conv_net.six_by_six", "palette.learnt_inpainting", "wavenet.guided", "made.labelled_bits"}
    assert stepped >= trainable | {"gan.ring", "gan_linear.labelled", "gan_images.full_digits"}


def test_every_preset_is_measured_by_something():
    """All can be drawn from, given one thing where they must be."""
    lacking = []
    for name in FEWER:
        try:
            models.Sample().setup(name, 16, "float32", "cpu")
        except NotImplementedError:
            lacking.append(name)
    assert lacking == []


GIVEN = ("restoration.denoised", "logistic.three_classes", "diffusion_exact.labelled_clusters")


@pytest.mark.parametrize("name", GIVEN)
def test_what_only_has_laws_given_something_is_measured_given_one_thing(name):
    """The same thing for every row, so rows may come in any order: but for 64 roundings, which order may vary."""
    case = (name, "float32", "cpu")
    benchmark = models.Quality()
    benchmark.setup(*case)
    log_p = benchmark.model.log_prob(benchmark.x[:4])
    close = 64 * torch.finfo(log_p.dtype).eps
    turned = benchmark.model.log_prob(benchmark.x[:4].flip(0))
    torch.testing.assert_close(log_p.flip(0), turned, rtol=close, atol=close)
    assert benchmark.track_perplexity(*case) > 0


def test_a_bound_stands_in_for_a_density_that_is_not_there():
    """vae.nine_pixels has no log_prob: its NLL is at most -ELBO, whose noise is the same at every call."""
    case = ("vae.nine_pixels", "float32", "cpu")
    benchmark = models.Quality()
    benchmark.setup(*case)
    x, source = benchmark.x[:100], generator(measures.SEED, "asv bound")
    expected = measures.preset(case[0]).elbo(x, generator=source)
    assert torch.equal(benchmark.model.log_prob(x), expected)
    assert not measures.adapt(measures.preset(case[0]), "vae").can("log_prob")


# ------------------------------------------------------------------------------------------------ with the judge


def written_history(folder, slower=0.0, worse=0.0, commits=16):
    """What is kept of so many commits: seconds with 1 % of noise, and NLL; steps from commit 10 on."""
    random = torch.Generator().manual_seed(0)
    about = {"a.Seconds.track": {"unit": "seconds", "version": "1"}, "a.Nll.track": {"unit": "exp(nats/dim)"}}
    about["a.Nll.track"]["version"] = "1"
    (folder / "m").mkdir(parents=True)
    (folder / "benchmarks.json").write_text(json.dumps({**about, "version": 2}))
    for i in range(commits):
        commit, planted = f"{i + 1:02x}" * 20, i >= 10
        noise = 0.01 * torch.randn(4, generator=random, dtype=torch.float64)
        logs = noise + math.log1p(slower) * planted
        seconds = {(f"{k}",): 1e-5 * math.exp(logs[k]) for k in range(4)}
        nll = {(f"{k}",): math.exp(1.4 + k + worse * planted * (k == 0)) for k in range(4)}
        told = asv_store.merged(None, result(seconds, benchmark="a.Seconds.track", commit=commit), FACTS)
        told = asv_store.merged(told, result(nll, benchmark="a.Nll.track", commit=commit), FACTS)
        asv_store.path_of(folder, "m", commit, FACTS["name"]).write_text(json.dumps({**told, "date": 1000 * i}))
    return folder


@pytest.mark.parametrize(
    ("planted", "found"),
    [({}, set()), ({"slower": 0.1}, {"time"}), ({"worse": 0.01}, {"nll"})],
    ids=["nothing", "a tenth slower", "0.01 nats per dimension worse"],
)
def test_what_is_kept_is_what_the_judge_of_histories_reads(tmp_path, planted, found):
    """No false step, but with probability 0.01; 10 % are ten deviations of one run, six of which are after the step."""
    judgement = judged(read(written_history(tmp_path / "kept", **planted)))
    assert {each.metric for each in judgement.regressions} == found
    assert all(each.commit == "0b" * 20 for each in judgement.regressions)  # the eleventh commit
    assert judgement.judged == 8
    assert not judgement.failures
