"""Deep models on real data, at budgets of a second on synthetic data: rounds, windows, bounds, devices, the command."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Generator, nn

from reference_impls.diagonal_lstm import DiagonalBiLSTM
from reference_impls.made import MADE
from reference_impls.nade import NADE
from reference_impls.ngram import Ngram
from reference_impls.transformer import Transformer
from reference_impls.vae import six_pixels
from suites.data import Splits
from suites.data.text import Text
from suites.real_data import cases, deep_cases, rows, shakespeare
from suites.real_data.__main__ import main, measured, selected
from suites.real_data.bars import BARS, CROSS_ENTROPY, GPU_BARS, LIKELIHOOD, MASS, bars_of
from suites.real_data.cases import Figure
from suites.real_data.deep_cases import DEEP, DeepCase, density_of_bits, flow_of_bits, vae
from suites.real_data.deep_fits import InParts, Recipe, Run, importance_bound, trained
from suites.real_data.gpu_cases import K_OF_LOSS, ON_GPU, Images, deep_vae
from suites.real_data.shakespeare import Crops, in_windows

SHORT = Recipe(20, rounds=2, batch=20, rate=0.05)


def generator(seed=0):
    return Generator().manual_seed(seed)


def bits(n, seed, d=6):
    """Chains: a bit is as the one before it with probability 0.8."""
    change = torch.rand(n, d, generator=generator(seed)) < torch.tensor([0.5] + [0.2] * (d - 1))
    return change.cumsum(1).remainder(2).float()


def fit(score=None, recipe=SHORT, run=None, model=None):
    told = []
    model = model or NADE(6, 4, seed=1)
    valid = bits(100, 1)
    score = score or (lambda m: InParts(m).mean(valid))
    trained(model, bits(200, 0), score, recipe, name="nade", run=run or Run(), tell=told.append)
    return model, told


# Rounds


@pytest.mark.parametrize(("scores", "best"), [((1.0, 2.0, 3.0), 3), ((3.0, 2.0, 1.0), 1), ((1.0, 3.0, math.nan), 2)])
def test_the_round_with_the_highest_score_is_kept(scores, best):
    seen = []

    def score(model):
        seen.append(model.W.clone())
        return scores[len(seen) - 1]

    model, told = fit(score, replace(SHORT, rounds=3))
    assert torch.equal(model.W, seen[best - 1])
    assert not torch.equal(seen[0], seen[1])
    assert [line.split(":")[0] for line in told] == [f"nade, round {i} of 3" for i in (1, 2, 3)]
    assert not any(p.requires_grad for p in model.parameters())


def test_a_round_goes_on_from_the_one_before_and_learns():
    """Chains of six bits have ln 2 + 5 H(0.2) = 3.195 nats, and independent coins 6 ln 2 = 4.16: 40 steps of rate 0.05
    are more than enough to leave the latter behind."""
    model, _ = fit()
    assert InParts(model).mean(bits(500, 2)) > -6 * math.log(2)


def test_without_a_score_the_last_round_is_kept():
    model = NADE(6, 4, seed=1)
    trained(model, bits(200, 0), None, SHORT, name="nade", run=Run(), tell=pytest.fail)
    rising = iter((0.0, 1.0))
    last, _ = fit(lambda m: next(rising))
    assert torch.equal(model.W, last.W)


def test_no_finite_score_is_an_error():
    with pytest.raises(ValueError, match="nade: no round has a finite score"):
        fit(lambda model: math.nan)


def test_a_run_goes_on_from_its_checkpoints(tmp_path):
    whole, _ = fit()
    first, _ = fit(recipe=replace(SHORT, rounds=1), run=Run(checkpoints=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["nade-1.pt"]
    resumed, _ = fit(run=Run(checkpoints=tmp_path))
    assert torch.equal(resumed.W, whole.W)
    assert not torch.equal(first.W, whole.W)


def test_l2_shrinks_matrices_and_spares_biases():
    plain, _ = fit(model=MADE(6, (8,), seed=1))
    small, _ = fit(recipe=replace(SHORT, l2=1.0), model=MADE(6, (8,), seed=1))
    assert small.direct.norm() < plain.direct.norm()
    weight = nn.Linear(1, 1)
    nn.init.ones_(weight.weight)
    nn.init.ones_(weight.bias)
    weight.loss = lambda x, *, generator: 0 * weight(x).sum()
    trained(weight, torch.zeros(4, 1), lambda m: 0.0, Recipe(1, batch=2, l2=1.0), name="", run=Run(), tell=print)
    assert weight.bias.item() == 1.0
    assert weight.weight.item() < 1.0


def test_a_recipe_says_what_it_does():
    assert str(Recipe(40, rate=2e-3)) == "Adam: 40 steps, batch 100, rate 0.002 falling to 0"
    assert str(Recipe(40, 3, clip=1.0, l2=1e-4)) == (
        "Adam: 3 rounds of 40 steps, batch 100, rate 0.001 falling to 0, gradients of norm 1 at most, l2 0.0001"
    )


# What is measured


def test_parts_are_the_whole():
    """Each row is summed by itself, in the same order or nearly so: 6 terms, each of a few roundings."""
    model, x = NADE(6, 4, seed=1).double(), bits(1201, 3).double()
    whole = model.log_prob(x).detach()
    torch.testing.assert_close(InParts(model).log_prob(x), whole, rtol=1e-14, atol=1e-14)
    assert not InParts(model).log_prob(x).requires_grad


def test_the_bound_rises_to_the_log_likelihood():
    """E L_1 <= E L_50 <= log p: means of differences in 1,000 rows, at 5 of their standard errors."""
    model = six_pixels(dtype=torch.float64)
    x = model.sample(1000, generator=generator(5))
    exact = model.log_prob(x).mean().item()
    one, fifty = (importance_bound(model, x, k, seed=0) for k in (1, 50))
    gap = model.log_prob(x) - model.iwae(x, 50, generator=generator(7))
    error = 5 * gap.std().item() / math.sqrt(len(x))
    assert one < fifty < exact + error
    assert exact - fifty < (exact - one) / 5
    assert importance_bound(model, x, 50, seed=0) == fifty
    assert importance_bound(model, x, 50, seed=1) != fifty


@pytest.mark.parametrize(("length", "stride"), [(5, 3), (5, 1), (7, 5), (100, 50)])
@pytest.mark.parametrize("n", [3, 31, 300])
def test_windows_say_each_character_once(n, length, stride):
    """A trigram looks back at two characters, which every window but the first has before those that it is asked for:
    windows of L with a stride of at most L - 2 say what the whole text says."""
    text = torch.randint(4, (n,), generator=generator(n))
    model = Ngram(text.repeat(2), vocabulary=4, context=2, length=max(n, length), dtype=torch.float64)
    torch.testing.assert_close(
        in_windows(model.conditionals, text, length, stride), model.conditionals(text[None])[0], rtol=0, atol=0
    )


def test_windows_that_forget_are_told_apart():
    text = torch.randint(4, (300,), generator=generator(0))
    model = Ngram(text, vocabulary=4, context=2, length=300, dtype=torch.float64)
    assert not torch.equal(in_windows(model.conditionals, text, 5, 5), model.conditionals(text[None])[0])


def test_crops_are_pieces_of_the_text():
    text = torch.arange(30) % 5
    crops = Crops(Transformer(5, 8, width=8, seed=0), text)
    assert crops.starts().tolist() == list(range(23))
    rows = torch.stack([text[3:11], text[22:30]])
    assert crops.loss(torch.tensor([3, 22]), generator=generator()) == crops.model.loss(rows)
    assert crops.cross_entropy(text[:8]) == pytest.approx(crops.model.loss(text[None, :8]).item(), rel=1e-6)


# Cases


def case(measure, **fields):
    return DeepCase("nltcs", "NADE", "M18", measure, "synthetic", seed=0, **fields)


def test_a_density_is_measured_with_its_mass(monkeypatch):
    """2^6 states, each a sum of 6 terms in float64: the mass is 1 to 2^6 x 6 roundings or better."""
    splits = Splits(bits(200, 0), bits(100, 1), bits(300, 2))
    monkeypatch.setattr(deep_cases, "bits", lambda path, run: splits)
    build = lambda: NADE(6, 4, seed=1)  # noqa: E731
    likelihood, mass = measured(case(partial(density_of_bits, build, SHORT, "nade")), None)
    model, _ = fit()
    assert likelihood["value"] == pytest.approx(model.double().log_prob(splits.test.double()).mean().item(), rel=1e-12)
    assert (likelihood["metric"], mass["metric"], mass["split"]) == (LIKELIHOOD, MASS, "all 64 states")
    assert mass["value"] <= 64 * 6 * 2.3e-16


@pytest.mark.parametrize("build", [lambda: vae(16, 8, 2), lambda: flow_of_bits(2, 8)])
def test_bounds_are_measured(build):
    """Coins have 16 ln 2 nats; what 40 steps have learnt of chains is well above that, and below log 1."""
    splits = Splits(*(bits(200, seed, 16) for seed in (0, 1, 2)))
    recipe = replace(SHORT, rate=0.01, steps=150, rounds=1)
    (figure,) = deep_cases.bound(lambda path, run: splits, build, recipe, "vae", 20, None, Run())
    assert (figure.split, figure.metric) == ("test", LIKELIHOOD)
    assert -16 * math.log(2) < figure.value < 0


def test_text_is_measured(monkeypatch):
    """Five letters in turn: the next one is certain, and known after a few steps."""
    text = torch.arange(900) % 5
    monkeypatch.setattr(shakespeare.data, "tiny_shakespeare", lambda path: Text(text[:810], text[810:], "abcde"))
    build = lambda: Transformer(5, 8, width=16, blocks=1, std=0.2, seed=0)  # noqa: E731
    (figure,) = shakespeare.attention(build, Recipe(60, batch=20, rate=0.02), "text", None, Run())
    assert figure.metric == CROSS_ENTROPY
    assert 0 < figure.value < math.log(5) / 2
    (counted,) = shakespeare.counts(2, None)
    law = Ngram(text[:810], vocabulary=5, context=2, length=90, dtype=torch.float64)
    assert counted.value == -float(law.log_prob(text[None, 810:])) / 90


# Those of a GPU


def test_every_bar_of_a_gpu_has_its_case():
    named = {(case.data, case.model) for case in ON_GPU}
    assert {(bar.data, bar.model) for bar in GPU_BARS} == named
    assert len(named) == len(ON_GPU)
    assert not named & {(case.data, case.model) for case in (*cases.CASES, *DEEP)}
    assert all(case.device == "cuda" for case in ON_GPU)


def test_models_of_a_gpu_take_rows_of_pixels():
    x = (torch.rand(2, 784, generator=generator()) < 0.2).float()
    small = DiagonalBiLSTM((28, 28), hidden=2, layers=1, seed=0)
    assert torch.equal(Images(small).log_prob(x), small.log_prob(x.reshape(-1, 28, 28)))
    assert Images(small).loss(x, generator=generator()).item() == pytest.approx(
        -Images(small).log_prob(x).mean().item()
    )
    model = deep_vae()
    bound = -model.iwae(x, K_OF_LOSS, generator=generator(1)).mean()
    assert model.loss(x, generator=generator(1)).item() == bound.item()
    model.loss(x, generator=generator()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_rows_of_a_gpu_say_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: f"a card for {name}")
    row = rows.row(ON_GPU[0], Figure("test", LIKELIHOOD, -88.0, "nats per draw"), 1.0)
    assert row["device"] == "a card for cuda"
    assert row["command"].startswith("python -m suites.real_data --device cuda --only binarized_mnist/NADE,-long-run ")
    assert [bar.low for bar in bars_of(row)] == [-88.9]
    assert [case.name for case in selected(["NADE,-long-run"], ON_GPU)] == [ON_GPU[0].name]


def test_wrong_calls_have_status_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, complaint in (
        (["--device", "cuda"], "--device cuda is for the long runs on a GPU, and torch finds none: leave it out"),
        (["--checkpoints", str(tmp_path / "no")], "is no folder: create it first"),
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        assert complaint in capsys.readouterr().err


def test_the_command_keeps_checkpoints(tmp_path, monkeypatch, capsys):
    splits = Splits(bits(200, 0), bits(100, 1), bits(300, 2))
    monkeypatch.setattr(deep_cases, "bits", lambda path, run: splits)
    measure = partial(density_of_bits, lambda: NADE(6, 4, seed=1), SHORT, "nade")
    monkeypatch.setattr("suites.real_data.__main__.CASES", [case(measure)])
    assert main(["--only", "nltcs/NADE", "--checkpoints", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nade-1.pt", "nade-2.pt"]
    assert "at least -6.03: reached" in capsys.readouterr().out


def test_deep_cases_have_bars_names_and_numbers():
    names = [case.name for case in (*cases.CASES, *DEEP)]
    assert len(set(names)) == len(names)
    for data, model in (("nltcs", "NADE"), ("binarized_mnist", "VAE"), ("tiny_shakespeare", "transformer")):
        assert [bar for bar in BARS if (bar.data, bar.model) == (data, model)]
    for one in DEEP:
        assert [known.name for known in selected([one.name])] == [one.name]
        assert one.exact_or_bound == "exact" or "lower bound" in one.exact_or_bound
