"""Real data: the fast rows are measured anew, those that are kept are held against their bars and their schema."""

import json
import math
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from reference_impls import autoregressive_logistic
from reference_impls.autoregressive_logistic import AutoregressiveLogistic, logistic_parameters
from reference_impls.discrete import Bernoulli
from suites import data
from suites.real_data import cases, rows
from suites.real_data.__main__ import main, measured, selected
from suites.real_data.bars import BARS, LIKELIHOOD, MASS, Bar, at_least, at_most, bars_of, equal
from suites.real_data.cases import CASES, Case, Figure, normalisation_error, thirds
from suites.real_data.conv_cases import CLASSIFIERS
from suites.real_data.deep_cases import DEEP
from suites.real_data.fits import autoregressive_by_adam, mixture_of_bernoullis
from suites.real_data.gpu_cases import ON_GPU

KEPT = Path(__file__).parents[2] / "results" / "real_data.json"
EVERY = (*CASES, *CLASSIFIERS, *DEEP)
SLOW = ("binarized_mnist/autoregressive-logistic",)
"""A minute and more; its row is kept."""
EPS = torch.finfo(torch.float64).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def case(name):
    (found,) = [case for case in CASES if case.name == name]
    return found


def strict(text):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# Measured anew


@pytest.mark.parametrize("name", [case.name for case in CASES if case.name not in SLOW])
def test_a_row_measured_anew_reaches_its_bars(name, here):
    here(case(name).data)
    for row in measured(case(name), None):
        jsonschema.validate(row, rows.SCHEMA["properties"]["rows"]["items"])
        assert all(bar.reached_by(row["value"]) for bar in bars_of(row)), row


def test_gaussian_and_lda_on_flowers_are_those_of_scipy_and_scikit_learn():
    train, test = thirds(data.iris())
    (gaussian,) = measured(case("iris/Gaussian"), None)
    law = stats.multivariate_normal(train.x.mean(0), torch.cov(train.x.mT, correction=0))
    # x of size 8, covariances of condition number 300: a solve loses 300 roundings of its quadratic form
    assert gaussian["value"] == pytest.approx(law.logpdf(test.x).mean(), rel=1e4 * EPS)
    (lda,) = measured(case("iris/LDA"), None)
    assert lda["value"] == LinearDiscriminantAnalysis().fit(train.x, train.y).score(test.x, test.y)


def test_a_third_of_the_rows_is_for_testing():
    train, test = thirds(data.iris())
    assert (len(train.x), len(test.x)) == (100, 50)
    assert test.y.bincount().tolist() in ([16, 17, 17], [17, 16, 17], [17, 17, 16])
    assert torch.equal(test.x[0], data.iris().x[2])


def test_mass_that_is_lacking_is_seen():
    class Short(Bernoulli):
        def log_prob(self, x):
            return super().log_prob(x) + math.log1p(-1e-8)

    probs = torch.full((8,), 0.3, dtype=torch.float64)
    assert normalisation_error(Bernoulli(probs), 8).value <= 1e-9
    lacking = normalisation_error(Short(probs), 8)
    assert lacking.value == pytest.approx(1e-8, rel=1e-6)  # 2^8 roundings of 1 are 6e-14
    bar = next(bar for bar in BARS if bar.metric == MASS)
    assert not bar.reached_by(lacking.value)


# Fits


def test_adam_comes_near_the_optimum_and_no_further():
    """A model of k parameters is known up to k / 2n nats from n draws: what is left of the way should be less."""
    x, valid = (
        autoregressive_logistic.six_bits(dtype=torch.float64).sample(2000, generator=generator(s)) for s in (0, 1)
    )
    optimum = AutoregressiveLogistic.fit(x).log_prob(x).mean()
    fitted = autoregressive_by_adam(x, valid, epochs=40, rate=0.05, batch=100)
    assert 0 <= optimum - fitted.log_prob(x).mean() <= logistic_parameters(6) / (2 * len(x))
    penalised = autoregressive_by_adam(x, valid, epochs=40, rate=0.05, batch=100, l2=1.0)
    assert penalised.weight.norm() < fitted.weight.norm() / 2


@pytest.mark.parametrize("epochs", [1, 30])
def test_adam_returns_the_epoch_that_the_validation_draws_like_best(epochs):
    """With 20 draws of six bits, each with up to five weights, later epochs follow the noise."""
    x, valid = (
        autoregressive_logistic.six_bits(dtype=torch.float64).sample(n, generator=generator(n)) for n in (20, 500)
    )
    told = []
    fitted = autoregressive_by_adam(x, valid, epochs=epochs, rate=0.5, batch=5, tell=told.append)
    scores = [line.split()[4] for line in told]
    assert len(scores) == epochs
    assert f"{fitted.log_prob(valid).mean():.3f}" == max(scores, key=float)
    assert epochs == 1 or max(scores, key=float) != scores[-1]


def test_fits_repeat_themselves():
    x, valid = (
        autoregressive_logistic.six_bits(dtype=torch.float64).sample(300, generator=generator(s)) for s in (0, 1)
    )
    one, two, other = (autoregressive_by_adam(x, valid, epochs=2, batch=50, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, other.weight)
    one, two = (mixture_of_bernoullis(x, valid, components=3, parts=2, rounds=2) for _ in range(2))
    assert torch.equal(one.probs, two.probs)
    assert len(one.weights) == 6


# Rows that are kept


@pytest.fixture(scope="module")
def kept():
    told = strict(KEPT.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(rows.SCHEMA)
    jsonschema.validate(told, rows.SCHEMA)
    return told["rows"]


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: f"{bar.data}/{bar.model}/{bar.metric}".replace(" ", "-"))
def test_kept_rows_reach_their_bars(bar, kept):
    (row,) = [row for row in kept if bar.concerns(row)]
    assert bar.reached_by(row["value"])


def test_every_case_has_its_rows_and_every_row_its_case(kept):
    named = {(row["data"], row["model"]): row for row in kept}
    here, there = ({(case.data, case.model): case for case in some} for some in (EVERY, ON_GPU))
    assert set(here) <= set(named) <= {*here, *there}
    for key, row in named.items():
        case, among = (here[key], EVERY) if key in here else (there[key], ON_GPU)
        fields = ("number", "preprocessing", "chosen", "exact_or_bound", "seed")
        assert [row[field] for field in fields] == [getattr(case, field) for field in fields]
        words = row["command"].split()
        assert selected([words[words.index("--only") + 1]], among) == [case]
        assert ("--device" in words) == (key in there)


def test_what_was_measured_twice_is_kept_once(kept):
    seen = [(row["data"], row["model"], row["split"], row["metric"]) for row in kept]
    assert len(set(seen)) == len(seen)


# Bars and rows


@pytest.mark.parametrize(
    ("bar", "reached", "missed"),
    [
        (equal("d", "m", LIKELIHOOD, -2.0, within=0.5), [-2.5, -2.0, -1.5], [-2.6, -1.4]),
        (at_least("d", "m", LIKELIHOOD, -2.0), [-2.0, 0.0], [-2.001, -math.inf]),
        (at_most("d", "m", MASS, 1e-9), [0.0, 1e-9], [1.1e-9, math.inf]),
    ],
)
def test_a_bar_is_an_interval(bar: Bar, reached, missed):
    assert all(bar.reached_by(value) for value in reached)
    assert not any(bar.reached_by(value) for value in [*missed, math.nan])


def test_a_new_row_takes_the_place_of_the_old_one_in_the_order_of_the_cases():
    figure = Figure("test", LIKELIHOOD, -1.0, "nats per draw")
    a, b = (rows.row(case(name), figure, 0.5) for name in ("iris/Gaussian", "nltcs/independent"))
    assert rows.merged([a], b) == [b, a]
    newer = {**a, "value": -3.0}
    assert rows.merged([b, a], newer) == [b, newer]
    other = {**a, "split": "train"}
    assert rows.merged([b, a], other) == [b, a, other]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_no_number_is_no_row(value):
    with pytest.raises(ValueError, match="which is no result"):
        rows.row(CASES[0], Figure("test", LIKELIHOOD, value, "nats per draw"), 0.0)


# The command


def test_rows_are_merged_into_the_file(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert main(["--only", "iris/LDA", "--json", str(path)]) == 0
    assert main(["--only", "IRIS/gauss", "--json", str(path)]) == 0
    told = strict(path.read_text())
    jsonschema.validate(told, rows.SCHEMA)
    assert [row["model"] for row in told["rows"]] == ["Gaussian", "LDA"]
    assert [place.name for place in tmp_path.iterdir()] == ["rows.json"]
    assert "[1/1] iris/LDA" in capsys.readouterr().out


def test_each_row_is_written_before_the_next_is_measured(tmp_path, monkeypatch):
    def stops(_):
        yield Figure("test", LIKELIHOOD, -1.0, "nats per draw")
        raise KeyboardInterrupt

    monkeypatch.setattr("suites.real_data.__main__.CASES", [replace(case("iris/Gaussian"), measure=stops)])
    with pytest.raises(KeyboardInterrupt):
        main(["--json", str(tmp_path / "rows.json")])
    assert len(rows.read(tmp_path / "rows.json")) == 1


def test_a_missed_bar_and_missing_data_are_not_success(tmp_path, monkeypatch, capsys):
    def poor(_):
        yield Figure("test", LIKELIHOOD, -7.0, "nats per draw")

    monkeypatch.setattr(
        "suites.real_data.__main__.CASES",
        [replace(case("nltcs/Chow-Liu-tree"), measure=poor), case("nltcs/independent")],
    )
    assert main(["--only", "chow"]) == 1
    assert "MISSED" in capsys.readouterr().out
    assert main(["--only", "independent", "--data", str(tmp_path)]) == 1
    assert f"left out: path {tmp_path} is no file and holds no debd/nltcs" in capsys.readouterr().out


def test_wrong_calls_have_status_2(tmp_path, capsys):
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"rows": []}')
    for arguments, complaint in (
        (["--only", "nothing"], "no case has 'nothing' in its name: choose from nltcs/independent"),
        (["--data", str(tmp_path / "no")], "is no folder"),
        (["--json", str(tmp_path / "no" / "rows.json")], "does not exist; create it"),
        (["--json", str(foreign)], "give another path, or delete it"),
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        assert complaint in capsys.readouterr().err
    assert foreign.read_text() == '{"rows": []}'


def test_numbers_of_models_are_those_of_the_reference_models():
    for one in (cases.Gaussian, cases.GaussianMixture, cases.IndependentCategoricals, cases.MarkovChain):
        assert one.number in {case.number for case in CASES}
    assert all(isinstance(one, Case) for one in CASES)
