"""Nights that add up: the martingale of stakes by enumeration, a small bias found by real nights, killed runs."""

import copy
import itertools
import json
import math
import multiprocessing
import os
import shlex
import time
from pathlib import Path

import pytest
import torch
from scipy.stats import binom

from harness import check_model
from harness.errors import CallError
from harness.evidence import Carried, Estimated, Look, Record, Verdict
from harness.judge import judge
from harness.report import Report
from harness.resolve import registered
from suites.nightly import __main__ as command
from suites.nightly import fingerprint, night, power, state, throughput
from suites.nightly.accumulate import LOG_WEIGHTS, START, grown, log_capital, log_stakes, reached, spent
from suites.nightly.site import page
from suites.nightly.state import Pair, Series, State
from suites.nightly.sums import Layout

COINS = '''
import torch

class Coin:
    """Heads with probability 0.3, says the density; the sampler adds `bias`."""

    event_shape = ()
    support = torch.distributions.constraints.boolean
    bias = 0.0

    def sample(self, n, *, generator):
        return (torch.rand(n, generator=generator) < 0.3 + self.bias).long()

    def log_prob(self, x):
        heads, tails = torch.tensor([0.3, 0.7]).log()
        return torch.where(x == 1, heads, torch.where(x == 0, tails, -torch.inf))

class Bent(Coin):
    bias = 0.018

class Broken(Coin):
    def log_prob(self, x):
        raise RuntimeError("no weights")
'''
ONLY = ("--only", "sampler.region_masses", "--no-speed")


@pytest.fixture
def coins(tmp_path, monkeypatch):
    """A folder with coins.py, in which the test then is."""
    (tmp_path / "coins.py").write_text(COINS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------- the statistics


@pytest.mark.parametrize(("low", "high", "p"), [(0.25, 4.0, 0.2), (0.5, 1.5, 0.5), (0.9, 101.0, 0.000999000999)])
def test_a_fair_bet_on_e_values_has_mean_one_after_every_night(low, high, p):
    """All 2^6 histories of an e-value with mean low (1 - p) + high p, which is 1 up to the digits of p."""
    mean = low * (1 - p) + high * p
    nights, total = 6, 0.0
    for history in itertools.product((False, True), repeat=nights):
        logs = START
        for up in history:
            logs = grown(logs, math.log(high if up else low))
        total += math.prod(p if up else 1 - p for up in history) * math.exp(log_stakes(logs))
    # every stake multiplies by (1 - stake + stake mean) a night in mean; 1e-12 is the rounding of 64 sums of products
    stakes = [(w, s) for w, s in zip(map(math.exp, LOG_WEIGHTS), (1.0, 0.5, 0.2, 0.05, 0.01), strict=True)]
    assert abs(total - sum(w * (1 - s + s * mean) ** nights for w, s in stakes)) <= 1e-12
    assert abs(total - 1) <= 1e-8


def test_a_correct_coin_is_accused_on_any_of_many_nights_as_rarely_as_promised():
    """Likelihood ratios of 20 tosses for heads with probability 0.6, under 0.5: 2,000 histories of 50 nights."""
    alpha, histories = 0.05, 2000
    generator = torch.Generator().manual_seed(0)
    heads = torch.bernoulli(torch.full((histories, 50, 20), 0.5), generator=generator).sum(-1)
    log_e = (heads * math.log(1.2) + (20 - heads) * math.log(0.8)).tolist()
    accused = 0
    for nights in log_e:
        logs = START
        for value in nights:
            logs = grown(logs, value)
            if reached(log_stakes(logs), alpha):
                accused += 1
                break
    # Ville: a history is accused with probability alpha at most, so more than this has probability 1e-9 at most
    assert 0 < accused <= binom.isf(1e-9, histories, alpha)


def test_small_stakes_grow_where_the_plain_product_dwindles():
    """Evidence 0.1 and 4 in turns: its mean 2.05 is above 1, the mean of its log (log 0.4) / 2 below 0."""
    logs = START
    for k in range(200):
        logs = grown(logs, math.log(0.1 if k % 2 else 4.0))
    assert logs[0] == pytest.approx(100 * math.log(0.4))  # the plain product
    assert log_stakes(logs) > math.log(1e9)


def test_the_plain_product_costs_a_factor_two_and_no_more():
    logs, product = START, 0.0
    for log_e in (3.0, -0.5, 8.0, 900.0):  # the last does not fit into a float
        logs, product = grown(logs, log_e), product + log_e
    assert product - math.log(2) <= log_stakes(logs) <= product


@pytest.mark.parametrize("log_e", [math.nan, -math.inf, math.inf])
def test_evidence_that_is_no_finite_number_is_a_failure_for_good(log_e):
    logs = grown(grown(START, log_e), -1.0)
    assert reached(log_capital(logs, -9.0), 1e-9)
    assert reached(log_capital(grown(logs, -5.0), -9.0), 1e-300)


def test_stakes_and_sums_have_half_of_the_capital_each():
    assert log_capital(START, 0.0) == pytest.approx(0.0, abs=1e-12)
    assert log_capital(START, 50.0) == pytest.approx(50.0 - math.log(2))
    stakes = grown(START, 50.0)
    assert log_capital(stakes, -1.0) == pytest.approx(log_stakes(stakes) - math.log(2))


def test_levels_of_all_nights_and_generations_sum_to_alpha():
    """6 / (pi k)^2 over k sums to 1; what follows after K terms is below 6 / (pi^2 K)."""
    terms = 100_000
    total = math.fsum(spent(1.0, k) for k in range(1, terms + 1))
    assert 1 - 6 / (math.pi**2 * terms) <= total <= 1
    with pytest.raises(ValueError, match="index is 0: count from 1"):
        spent(1.0, 0)


# -------------------------------------------------------------------------------------------------- the state


def planned(*marks, name="m"):
    return [(f"{name}{i}", f"spec{i}", {"spec": f"spec{i}", "model": mark}, mark) for i, mark in enumerate(marks)]


def test_a_changed_model_starts_a_series_and_the_others_go_on():
    first = state.with_series(State(), planned("a", "b"), checks=10)
    again = state.with_series(first, planned("a", "B"), checks=10)
    assert first.series["spec0"].level == pytest.approx(1e-6 / 2 * 6 / math.pi**2 / 20)
    assert again.series["spec0"] == first.series["spec0"]
    assert again.series["spec1"].generation == 2
    assert again.series["spec1"].level == pytest.approx(1e-6 / 2 * 6 / math.pi**2 / 4 / 10)
    assert [ended["spec"] for ended in again.closed] == ["spec1"]
    assert state.with_series(again, planned("a", "B"), checks=10) == again


def test_all_levels_ever_given_stay_within_half_of_alpha():
    """Each night another model changes, and sometimes all."""
    now, total, checks = State(), 0.0, 7
    for k in range(60):
        before = now
        now = state.with_series(now, planned(*(f"{k if k % 10 == 0 or i == k % 5 else 0}" for i in range(5))), checks)
        total += sum(checks * s.level for spec, s in now.series.items() if before.series.get(spec) != s)
    assert now.generations > 20
    assert total <= now.alpha / 2


def record(log_e, asymptotic=False, seen=0.0):
    """A record whose largest look `seen` is not its last."""
    looks = (Look(100, 0.0, -1, 1, seen), Look(200, 0.0, -0.01, 0.01, log_e))
    carried = None if asymptotic else Carried(log_e, 1, (0,), (0.0,), (1.0,), (0.0,), (1.0,))
    evidence = Estimated(looks, 0.05, 0.999, "probability", asymptotic=asymptotic, carried=carried)
    return Record("m0", "sampler.bridge", judge(evidence, 1e-9), evidence, 1e-9, 0.1, "")


def taken_in(now, *records):
    from harness.effort import Settings, effort_named

    report = Report.of(records, Settings(effort_named("quick"), 1), alpha=1e-6, specs={"m0": "spec0"})
    return state.folded(now, report, {"night": now.night + 1})


def test_a_night_leaves_the_evidence_and_the_sums_of_the_look_at_which_it_stopped():
    now = taken_in(state.with_series(State(), planned("a"), 1), record(-0.5, seen=9.0))
    pair = now.series["spec0"].pairs["sampler.bridge"]
    assert pair.logs[0] == -0.5
    assert pair.layouts == (Layout((0.0,), (1.0,), (0.0,), (1.0,)),)


def test_asymptotic_evidence_does_not_add_up():
    now = taken_in(state.with_series(State(), planned("a"), 1), record(5.0, asymptotic=True))
    assert not now.series["spec0"].pairs


def test_an_accumulated_fail_stays_until_the_code_changes():
    now = state.with_series(State(), planned("a"), 1)
    for log_e in (9.0, 9.0, -9.0):
        now = taken_in(now, record(log_e))
    ((series, check, pair),) = state.crossed(now, ["spec0"])
    assert (check, pair.crossed, pair.nights) == ("sampler.bridge", 2, 3)
    assert "m0 sampler.bridge: 3 nights since 1" in state.summary(series, check, pair)
    assert not list(state.crossed(state.with_series(now, planned("b"), 1), ["spec0"]))


def test_a_state_is_read_as_it_was_written_and_is_strict_json(tmp_path):
    layouts = (Layout((0.5, math.nan), (0.0, 1.0), (-0.5, 0.0), (math.inf, 1e-300)),)
    pairs = {"x": Pair(), "y": Pair((math.nan,) * 5, layouts, 1, 1, math.inf, 1)}
    series = Series("m", {"spec": "s"}, "f", 1, 1e-9, 1, pairs)
    state.write(State(1e-6, 3, 1, {"s": series}, ({"spec": "old"},), ({"night": 1},)), tmp_path / "s.json")
    text = (tmp_path / "s.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
    state.write(state.read(tmp_path / "s.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == text


def test_a_state_of_before_there_were_sums_is_read(tmp_path, monkeypatch):
    """As it was written then; its series end, since the examiner has changed."""
    monkeypatch.chdir(tmp_path)
    pair = {"logs": [0.5] * 5, "nights": 3, "strongest": 2, "strongest_log_e": "-inf", "crossed": 0}
    series = {"name": "m", "facts": {"spec": "s"}, "fingerprint": "f", "generation": 1, "level": 1e-9, "first": 1}
    told = {"format": 1, "alpha": 1e-6, "night": 3, "generations": 1, "closed": [], "nights": []}
    Path("old.json").write_text(json.dumps({**told, "series": {"s": {**series, "pairs": {"x": pair}}}}))
    assert state.read(Path("old.json")).series["s"].pairs["x"] == Pair((0.5,) * 5, (), 3, 2)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 9}', "{"])
def test_what_is_no_state_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(CallError, match="restore it from the last night's artifact, or name another --state"):
        state.read(tmp_path / "s.json")


def test_alpha_is_that_of_the_first_night(tmp_path):
    state.write(State(alpha=1e-3), tmp_path / "s.json")
    assert state.read(tmp_path / "s.json", 1e-3).alpha == 1e-3
    with pytest.raises(CallError, match=r"was begun with 0\.001: leave --alpha out"):
        state.read(tmp_path / "s.json", 1e-2)


# ----------------------------------------------------------------------------------------- what the code was


def test_a_fingerprint_follows_the_sources_that_a_model_imports(coins):
    (coins / "coins.py").write_text("import numpy, helper\n" + COINS)
    (coins / "helper.py").write_text("a = 1\n")
    (coins / "other.py").write_text("a = 1\n")
    before = fingerprint.facts("coins.py:Coin", "cpu")
    (coins / "other.py").write_text("a = 2\n")
    assert fingerprint.facts("coins.py:Coin", "cpu") == before
    (coins / "helper.py").write_text("a = 2\n")
    after = fingerprint.facts("coins.py:Coin", "cpu")
    assert fingerprint.fingerprint(after) != fingerprint.fingerprint(before)
    assert {name for name in before if before[name] != after[name]} == {"model"}
    assert before["versions"]["torch"].startswith(torch.__version__.partition("+")[0])


def test_a_registered_model_is_told_by_its_file_and_what_that_imports_beside_it():
    sources, _ = fingerprint._sources("reference_impls.mixture:three_modes")
    assert {"reference_impls.mixture", "reference_impls"} <= dict(sources).keys()
    assert "reference_impls.vae" not in dict(sources)


# --------------------------------------------------------------------------------------------- real nights


def test_a_bias_too_small_for_one_night_is_found_by_several_and_the_correct_model_is_not_accused(coins, capsys):
    """0.018 of probability, where a quick PASS excludes 0.05 only. Measured with this check: none of the seeds 1 to 15
    finds it alone, and all together reach their level in night 5."""
    call = ["--models", "coins.py:Bent", "coins.py:Coin", *ONLY, "--nights", "10", "--state", "nights/state.json"]
    assert command.main([*call, "--site", "site"]) == 1
    said = capsys.readouterr().out
    after = state.read(Path("nights/state.json"))
    (found,) = state.crossed(after, ["coins.py:Bent", "coins.py:Coin"])
    series, check, pair = found
    assert (series.name, check) == ("Bent", "sampler.region_masses")
    assert 2 <= pair.crossed == after.night <= 10
    assert all(told["counts"]["FAIL"] == 0 for told in after.nights)  # no night alone
    assert [bool(told["red"]) for told in after.nights] == [False] * (after.night - 1) + [True]
    assert [told["seed"] for told in after.nights] == list(range(1, after.night + 1))
    assert all(pair.nights == after.night for pair in after.series["coins.py:Coin"].pairs.values())
    assert f"ACCUMULATED FAIL Bent sampler.region_masses: {after.night} nights since 1" in said
    assert "ACCUMULATED FAIL" in Path("site/index.html").read_text()
    assert "Bent" in Path("site/night.html").read_text()
    reproducer = shlex.split(next(line for line in said.splitlines() if "↳ python -m suites.nightly" in line))
    assert command.main(reproducer[reproducer.index("suites.nightly") + 1 :]) == 1


def test_an_error_is_red_and_costs_its_own_model(coins, capsys):
    call = ["--models", "coins.py:Broken", "coins.py:Coin", "--only", "sampler.region_masses"]
    assert command.main([*call, "--no-speed", "--state", "state.json"]) == 1
    assert "ERROR night 1, Broken" in capsys.readouterr().out
    assert state.read(Path("state.json")).series["coins.py:Coin"].pairs


def test_a_run_that_is_killed_goes_on_with_the_models_that_are_left(coins):
    (coins / "three.py").write_text(COINS + "models = [Coin(), Coin(), Coin()]\n")
    call = ["--models", "three.py:models", *ONLY, "--state"]
    fingerprint._examiner()  # known before the fork: someone who edits the examiner now does not disturb the test
    killed = multiprocessing.get_context("fork").Process(target=command.main, args=([*call, "a/state.json"],))
    killed.start()
    while not Path("a/night-0001/000.json").exists():
        assert killed.is_alive(), "it ended before it could be killed"
        time.sleep(0.002)
    killed.kill()
    killed.join()
    assert not Path("a/state.json").exists()
    kept = Path("a/night-0001/000.json").read_bytes()
    assert command.main([*call, "a/state.json"]) == 0
    assert not Path("a/night-0001").exists()
    report = Report.read("a/night-0001.json")
    assert report.records[0].seconds == json.loads(kept)["records"][0]["seconds"]  # this one was not made again
    alone = check_model(coin(), effort="quick", seed=1, only=["sampler.region_masses"], alpha=report.run.alpha / 3)
    due = {r.check: r.evidence.carried.log_e for r in alone.records if isinstance(r.evidence, Estimated)}
    after = state.read(Path("a/state.json"))
    assert len(after.series) == 3
    for series in after.series.values():  # as if it had never been stopped
        assert {check: pair.logs[0] for check, pair in series.pairs.items()} == due


def coin():
    space = {}
    exec(COINS, space)
    return space["Coin"]()


def test_a_night_that_was_begun_is_finished_with_the_same_options(coins):
    setting = night.Setting(Path("state.json").resolve(), effort="standard")
    models = [night.Listed("Coin", "coins.py:Coin")]
    night._begun(State(), setting, models)
    with pytest.raises(CallError, match=r"night 1 was begun with .*--effort standard.*: finish it so"):
        night._begun(State(), night.Setting(setting.state, effort="quick"), models)


def test_a_night_whose_code_changed_before_its_end_is_given_up_with_its_seed(coins, capsys):
    setting, models = night.Setting(Path("state.json").resolve()), [night.Listed("Coin", "coins.py:Coin")]
    night._begun(State(), setting, models)
    Path("coins.py").write_text(COINS + "\n")
    now, plan, _ = night._begun(State(), setting, models)
    assert (now.night, plan["night"], plan["seed"]) == (1, 2, 2)
    assert "abandoned" in state.read(setting.state).nights[0]
    assert "night 1 is given up: models or code changed" in capsys.readouterr().err


def test_two_runs_at_once_do_not_share_a_state(coins, capsys):
    with state.locked(Path("state.json")):
        assert command.main(["--models", "coins.py:Coin", *ONLY, "--state", "state.json"]) == 2
    assert "another run works on state.json: wait for it" in capsys.readouterr().err
    assert not Path("state.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "0"], "--budget is 0.0: give a number above 0"),
        (["--nights", "0"], "--nights is 0"),
        (["--alpha", "2"], "--alpha is 2.0: give a probability"),
        (["--device", "cuda"], "torch finds no CUDA device"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(words, said, coins, capsys):
    if words[1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert command.main([*words, "--state", "state.json"]) == 2
    assert said in capsys.readouterr().err


def test_a_night_on_a_cpu_leaves_the_models_of_a_papers_size_out():
    small, every = (set(command._models_for(device)) for device in ("cpu", "cuda"))
    assert small < every == {entry.name for entry in registered()}
    assert "nade.full_nade" in every - small
    assert all(".full_" in name for name in every - small)


# ---------------------------------------------------------------------------------------------------- speed


def test_tf32_is_off_for_the_processes_that_examine(monkeypatch):
    monkeypatch.setenv(command.NO_TF32, "1")
    with command._without_tf32():
        assert os.environ[command.NO_TF32] == "0"
    assert os.environ[command.NO_TF32] == "1"


def test_ceilings_are_strict_json_with_the_settings_they_hold_for():
    told = throughput.measured("cpu", copied=2**16, side=16)
    json.loads(json.dumps(told, allow_nan=False))
    (row,) = told["ceilings"]
    assert row["tf32"] is row["flags"]["tf32_matmul"] is False
    assert 0 < row["copy_bytes_per_second"] < math.inf
    assert told["machine"]["versions"]["torch"]


def test_a_missing_history_is_said_and_a_failed_one_is_red(tmp_path, monkeypatch, capsys):
    call = command._parser().parse_args(["--state", str(tmp_path / "state.json")])
    ran = []
    monkeypatch.setattr(command, "_run", lambda *words: ran.append(words[0]) or [])
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    command._speed(call, night.Night(1, None, State(), ()))
    assert ran == ["suites.nightly.throughput"]
    assert "no history of speed: suites/history.py is not here" in capsys.readouterr().out
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: object())
    command._speed(call, night.Night(1, None, State(), ()))
    assert ran[1:] == ["suites.nightly.throughput", "suites.history", "harness.cli"]
    monkeypatch.undo()
    (failed,) = command._run("json.tool", "no such file")
    assert failed.startswith("FAILED with exit status 2")


def test_the_page_escapes_what_models_are_called(tmp_path):
    now = state.with_series(State(), [("<b>", "spec0", {"spec": "spec0"}, "a")], 1)
    series = Series(**{**vars(now.series["spec0"]), "pairs": {"x": Pair()}})
    shown = page(night.Night(1, taken_report(), State(series={"spec0": series}), ("<i>",)), False, None)
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "<i>" not in shown


def taken_report():
    from harness.effort import Settings, effort_named

    return Report.of([record(0.0)], Settings(effort_named("quick"), 1), alpha=1e-6)


def test_power_is_measured_by_counts_that_real_nights_agree_with(monkeypatch, tmp_path):
    """A coin that is off by 0.1 fails alone every night, and so is found; a real night says what its counts say."""
    monkeypatch.setattr(power, "CASES", (("quick", 0.1, 3, 2),))
    monkeypatch.setattr(power, "CORRECT", (("quick", 4, 2, 0.05),))
    monkeypatch.setattr(power, "REAL_COIN_NIGHTS", 1)
    monkeypatch.setattr(power, "REAL_NIGHTS", 1)
    assert power.main(["--json", str(tmp_path / "power.json")]) == 0
    told = json.loads((tmp_path / "power.json").read_text(), parse_constant=pytest.fail)
    (row,) = told["biased"]
    assert row["nights_failed_alone"] == 6
    assert row["accumulated"]["found"] == row["stakes"]["found"] == 3
    assert row["accumulated"]["nights"]["50 %"] == 1
    assert told["correct"][0]["series_with_an_alarm"] == {"accumulated": 0, "sums": 0, "stakes": 0}
    coin, model = told["real"]
    assert (coin["nights"], coin["found_in"], model["alarms"]) == (1, None, 0)
    assert model["checks"] >= 15


@pytest.mark.parametrize("heads", [580, 614, 660, 900])
def test_looks_made_at_once_are_those_of_the_statistic(heads):
    effort = power.effort_named("quick")
    statistic, allowed = power._begin(effort)
    statistic = copy.deepcopy(statistic)
    statistic.add(torch.tensor([2048.0 - heads, heads, 0.0], dtype=torch.float64))
    made = power.seen(effort, 2048, torch.tensor([heads, heads + 1]))
    look = statistic.look(0.999)
    assert float(made.log_e[0]) == pytest.approx(statistic.allowing(allowed), abs=1e-9)
    assert float(made.evidence[0]) == pytest.approx(look.log_e, abs=1e-9)
    torch.testing.assert_close(made.sums[0], statistic.carried(allowed), rtol=1e-12, atol=1e-9)
    evidence = Estimated((look,), effort.tolerance, 0.999, "probability")
    verdict = judge(evidence, power.LEVEL)
    assert (bool(made.fails[0]), bool(made.ends[0])) == (verdict is Verdict.FAIL, verdict is not Verdict.INCONCLUSIVE)


def test_series_made_at_once_are_those_made_one_by_one():
    made = power.nights(power.effort_named("quick"), 0.02, series=2, length=3, seed=0)
    both = power.together(power.capital_of_sums(made), power.capital_of_stakes(made))
    for i in range(2):
        pair = Pair()
        for k in range(3):
            rows = made.sums[i, k]
            carried = Carried(float(made.log_e[i, k]), len(rows), tuple(range(len(rows))), *map(tuple, rows.T.tolist()))
            series = Series("m", {}, "f", 1, 1e-9, 1, {"x": pair})
            pair = state._with_record(series, "x", carried, k + 1).pairs["x"]
            assert pair.log_capital == pytest.approx(float(both[i, k]), abs=1e-9)


def test_verdicts_of_the_helper_are_those_of_the_judge():
    assert record(-0.5).verdict is Verdict.PASS
