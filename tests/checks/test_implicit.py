"""Models that only draw, beside their data: mutants are found, near misses pass, false alarms keep to their level."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from engine import alone, changed, examined, record, troubles
from harness.adapters import adapt
from harness.checks import implicit as laws
from harness.checks import implicit_data
from harness.checks.implicit import gaussian_w2_squared
from harness.checks.implicit_data import LEAST_ROWS, difference, fresh, imitated
from harness.draws import Draws
from harness.effort import Effort
from harness.evidence import Verdict
from harness.mutants import implicit
from harness.mutants.implicit import Imitator, Labelled, Law, bits, correlated, heavy, linear, ring
from harness.subject import Subject

IDS = [check.id for check in laws.CHECKS]
FEW = Effort("few", draws=512, tolerance=0.1, first_look=128, pilot=128)


@pytest.mark.parametrize("mutant", implicit.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", implicit.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in implicit.MUTANTS} == set(IDS) == {n.check for n in implicit.NEAR_MISSES}


# Guarantees

ALPHA, REPLICAS = 0.05, 30


def line(n, g):
    return torch.randn(n, generator=g)


LAWS = {
    "implicit.modes_covered": ring,
    "implicit.agrees_with_data": heavy,
    "implicit.not_memorised": ring,
    "implicit.not_repeated": correlated,
    "implicit.adversary": line,
}


class Fresh(Imitator):
    """A right sampler whose held-out and training rows are others in every replica."""

    def __init__(self, draw, seed, held_out):
        super().__init__(draw, held_out, learnt=100)
        self.seed = seed
        self.training_data = lambda: draw(100, torch.Generator().manual_seed(2 * seed))

    def data(self):
        law = super().data()
        return (
            law if isinstance(law, Law) else self.draw(self.held_out, torch.Generator().manual_seed(2 * self.seed + 1))
        )


def replicas(check, held_out, effort=FEW):
    models = (Fresh(LAWS[check], 1000 + i, held_out) for i in range(REPLICAS))
    return [record(model, check, effort=effort, seed=i, alpha=ALPHA) for i, model in enumerate(models)]


@pytest.mark.parametrize("held_out", [0, 400], ids=["law", "table"])
@pytest.mark.parametrize("check", LAWS)
def test_false_alarms_keep_their_level(check, held_out):
    """Right samplers: at most 0.05 of them FAIL. More than the 1 - 1e-4 quantile of that binomial would be a defect."""
    seen = replicas(check, held_out)
    alarms = sum(each.verdict is Verdict.FAIL for each in seen)
    assert alarms <= stats.binom.ppf(1 - 1e-4, REPLICAS, ALPHA), f"{alarms} of {REPLICAS}"
    low = [each.evidence.last.low for each in seen]  # the intervals, at 99.9 %, hold 0
    assert sum(low_end > 0 for low_end in low) <= stats.binom.ppf(1 - 1e-4, REPLICAS, 0.001)


def test_calibration_catches_a_test_that_uses_a_row_again_and_again(monkeypatch):
    """The same rows in every chunk look like many: what the bookkeeping of rows is there for."""

    def again(draws):
        data = imitated(draws.subject)
        return data.table[: draws.n].repeat(-(-draws.n // len(data.table)), 1)[: draws.n]

    monkeypatch.setattr(implicit_data, "_fresh", again)
    monkeypatch.setattr(implicit_data, "MOST_DRAWS", 1)
    seen = replicas("implicit.agrees_with_data", LEAST_ROWS, replace(FEW, draws=4096))
    alarms = sum(each.verdict is Verdict.FAIL for each in seen)
    assert alarms > stats.binom.ppf(1 - 1e-4, REPLICAS, ALPHA)


def test_a_row_of_a_table_is_evidence_once_and_never_steers():
    model = Imitator(ring, held_out=1000)
    subject = Subject(adapt(model), Effort("some", draws=4096, tolerance=0.1, pilot=512), 0)
    chunks = [fresh(Draws(subject, index, 2048)) for index in range(3)]
    data = imitated(subject)
    rows = torch.cat([data.steer, *chunks])
    assert len(rows) == 1000
    assert len(rows.unique(dim=0)) == 1000
    assert data.group == 5  # 4096 draws for 750 rows
    assert [len(chunk) for chunk in chunks] == [409, 341, 0]
    assert torch.equal(fresh(Draws(subject, 1, 2048)), chunks[1])
    assert difference(Draws(subject, 2, 2048), lambda x: x).shape == (0, 2)


@pytest.mark.parametrize("held_out", [0, 300], ids=["law", "table"])
def test_images_are_events_too(held_out):
    """Also when the rows of a table are over, as they are after the first chunks."""

    def images(n, g):
        return (torch.randn(n, 1, 5, 5, generator=g) + torch.randn(n, 1, 1, 1, generator=g)).tanh()

    seen = alone(Imitator(images, held_out, learnt=200), *IDS)
    assert troubles(seen) == {}
    assert seen["implicit.adversary"].evidence.n > 2048


@pytest.mark.parametrize("draw", [ring, heavy, bits], ids=["ring", "heavy", "bits"])
@pytest.mark.parametrize("held_out", [0, 3000], ids=["law", "table"])
def test_a_whole_run_on_a_right_sampler_raises_no_alarm(draw, held_out):
    seen = examined(Imitator(draw, held_out, learnt=500))
    assert troubles(seen) == {}
    assert {seen[id].verdict for id in IDS[2:-1]} <= {Verdict.PASS, Verdict.INCONCLUSIVE}


ONE_BY_ONE = {m.check: m for m in reversed(implicit.MUTANTS)}.values()  # the first of each check


@pytest.mark.parametrize("mutant", list(ONE_BY_ONE), ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_one_defect_is_one_fail(mutant):
    assert list(troubles(examined(changed(mutant)))) == [mutant.check]


def test_rounded_draws_are_too_coarse_and_no_repeats():
    class Rounded(Imitator):
        def sample(self, n, *, generator):
            return (100 * super().sample(n, generator=generator)).round() / 100

    model = Rounded(correlated)
    assert record(model, "implicit.not_repeated").verdict is Verdict.FAIL  # alone it would say so
    assert "implicit.not_repeated" not in troubles(examined(model))


# Power: what a whole run of `standard` finds


@pytest.mark.parametrize(("rho", "found"), [(0.5, False), (0.46, True)])
def test_the_classifier_finds_a_correlation(rho, found):
    """log det of the correlation moves by 2 rho d(rho) / (1 - rho^2): 0.04 in rho is T^2 = 0.04^2 (1 + rho^2) /
    (1 - rho^2)^2 = 0.0036 for the best witness, so 262,144 pairs have n T^2 / 2 = 470 nats, and 18 are asked for. The
    features see a part of it.
    """

    class Other(Imitator):
        def sample(self, n, *, generator):
            return correlated(n, generator, rho)

    seen = record(Other(correlated), "implicit.adversary", effort="standard")
    assert (seen.verdict is Verdict.FAIL) == found, seen.message


# The closed form


def test_w2_of_one_dimension_is_that_of_quantiles():
    """int_0^1 (F^-1 - G^-1)^2, by scipy's quantiles and quadrature: (m - m')^2 + (s - s')^2 for Gaussians."""
    from scipy.integrate import quad

    p, q = stats.norm(1.0, 0.5), stats.norm(-0.25, 2.0)
    truth, error = quad(lambda u: (p.ppf(u) - q.ppf(u)) ** 2, 0, 1, epsabs=1e-10, limit=400)
    m, s, n, t = (torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.25]], [-0.25], [[4.0]]))
    assert abs(gaussian_w2_squared(m, s, n, t) - truth) <= error + 1e-12


def test_w2_is_attained_by_the_optimal_map_and_by_no_worse_one():
    """Of x ~ N(0, S) and T x with T = S^-1/2 (S^1/2 S' S^1/2)^1/2 S^-1/2: E|x - T x|^2 = tr (I - T) S (I - T)."""
    from scipy.linalg import sqrtm

    a, b = np.random.default_rng(0).normal(size=(2, 3, 3))
    s, t = a @ a.T, b @ b.T
    root = np.real(sqrtm(s))
    inverse = np.linalg.inv(root)
    best = inverse @ np.real(sqrtm(root @ t @ root)) @ inverse
    zero = torch.zeros(3, dtype=torch.float64)
    said = gaussian_w2_squared(zero, torch.from_numpy(s), zero, torch.from_numpy(t))
    attained = np.trace((np.eye(3) - best) @ s @ (np.eye(3) - best).T)
    assert np.allclose(best @ s @ best.T, t)
    assert abs(said - attained) <= 1e-10 * np.trace(s + t)
    worse = np.linalg.cholesky(t) @ np.linalg.inv(np.linalg.cholesky(s))  # another map onto N(0, S')
    assert said < np.trace((np.eye(3) - worse) @ s @ (np.eye(3) - worse).T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "k"), [(1, 1), (4, 2), (30, 30), (50, 3)])
def test_rounding_of_equal_moments_is_no_distance(dtype, d, k):
    seen = record(linear(d, k, dtype), "implicit.gaussian_w2")
    assert seen.verdict is Verdict.PASS, seen.message


# What may be said, and what may not


@pytest.mark.parametrize(
    "data",
    [
        lambda: torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]])),
        lambda: correlated(3000, torch.Generator().manual_seed(7)).numpy(),
        lambda: correlated(3000, torch.Generator().manual_seed(7)).double(),
    ],
    ids=["torch", "numpy", "float64"],
)
def test_data_of_any_kind(data):
    model = Imitator(correlated)
    model.data = data
    seen = alone(model, *IDS)
    assert troubles(seen) == {}
    assert seen["implicit.agrees_with_data"].evidence.n > 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: 3, "cannot be drawn from"),
        (lambda: torch.zeros(500), "a row each"),
        (lambda: torch.full((500, 2), torch.nan), "not finite"),
        (lambda: Law(partial(ring, modes=3)).sample, "cannot be drawn from"),
    ],
    ids=["number", "shape", "nan", "method"],
)
def test_data_that_is_none_is_one_error_that_says_so(data, words):
    model = Imitator(ring)
    model.data = data
    seen = examined(model, "implicit")
    assert list(troubles(seen)) == ["implicit.data_well_formed"]
    assert words in seen["implicit.data_well_formed"].message
    assert seen["implicit.adversary"].verdict is Verdict.SKIP


def test_few_rows_are_a_skip_that_says_how_many():
    seen = alone(Imitator(ring, held_out=LEAST_ROWS - 1), *IDS)
    assert {each.verdict for each in seen.values()} == {Verdict.SKIP}
    assert f"{LEAST_ROWS} are the least" in seen["implicit.agrees_with_data"].message


def test_a_model_without_data_is_skipped_with_the_reason():
    seen = alone(Law(ring), *IDS)
    assert {each.verdict for each in seen.values()} == {Verdict.SKIP}
    assert "no data" in seen["implicit.modes_covered"].message


def test_data_without_laws_given_labels_say_nothing_of_labels():
    model = Labelled()
    model.data = lambda: Law(lambda n, g: Labelled().sample(n, generator=g))
    seen = alone(model, "implicit.agrees_given", "implicit.agrees_with_data")
    assert seen["implicit.agrees_given"].verdict is Verdict.SKIP
    assert seen["implicit.agrees_with_data"].verdict is Verdict.PASS


def test_too_concentrated_draws_are_a_disagreement_and_no_memory():
    """They are nearer to every row, held out or not."""

    class Shrunk(Imitator):
        def sample(self, n, *, generator):
            return 0.5 * super().sample(n, generator=generator)

    model = Shrunk(correlated, learnt=500)
    model.data = lambda: Law(correlated)
    (said,) = troubles(examined(model, "implicit"))
    assert said in ("implicit.modes_covered", "implicit.agrees_with_data")
    assert record(model, "implicit.not_memorised").verdict is Verdict.FAIL  # alone it would say so
