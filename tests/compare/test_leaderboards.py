"""The stored leaderboards follow from their own rows, and their recipes make models of what they are given."""

import inspect
import json
import math
import tempfile
from pathlib import Path

import pytest
import torch

from harness.adapters import adapt
from harness.compare.board import board_of, read
from harness.compare.data import made
from harness.compare.training import learnable
from suites import leaderboard
from suites.data import registered
from suites.data.source import Splits

RESULTS = Path(__file__).parents[2] / "results"
BOARDS = sorted(RESULTS.glob("leaderboard_*.json"))
KNOWN = {"independent": 9.23361, "chain": 7.32727, "Chow-Liu tree": 6.75904, "pgmpy chain": 7.32727}
"""Mean test NLL on nltcs with one added to every count, measured by code apart from this repository's."""


def refuse(name: str) -> float:
    raise AssertionError(f"{name} is no strict JSON")


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_judgement_of_a_stored_leaderboard_follows_from_its_rows(path):
    stored = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    again = board_of(stored["rows"], stored["data"], {k: v for k, v in stored["run"].items() if k != "alpha"})
    assert json.loads(json.dumps(again)) == stored


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_stored_leaderboards_name_no_place_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    for place in (Path.home(), tempfile.gettempdir(), RESULTS.parent, "site-packages"):
        assert str(place) not in text


def test_the_closed_forms_on_nltcs_are_the_known_ones():
    rows = read(RESULTS / "leaderboard_nltcs.json")["rows"]
    found = {row["name"]: row["nll"]["mean"] for row in rows if row["nll"]}
    for name, known in KNOWN.items():
        if name in found:
            assert found[name] == pytest.approx(known, abs=1e-5)  # a unit of the last digit that is known


OURS = ("independent", "chain", "tree", "logistic", "bernoullis", "made", "nade")
PIXELS = ("pixel_logistic", "pixel_made", "pixel_nade", "sklearn_bernoullis")
REAL = ("gaussian", "diagonal_gaussian", "principal", "gaussians", "own_maf", "own_spline_maf")


@pytest.mark.parametrize("name", [*OURS, *PIXELS])
def test_a_recipe_of_bits_makes_a_law_of_bits(name):
    x = (torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) < 0.4).long()
    offered = {"valid": x, "levels": (2,) * 4, "generator": torch.Generator().manual_seed(1)}
    recipe = getattr(leaderboard, name)
    model = adapt(recipe(x, **{k: v for k, v in offered.items() if k in inspect.signature(recipe).parameters}))
    states = torch.cartesian_prod(*[torch.arange(2)] * 4)
    mass = model.log_prob(states.float()).exp().sum()
    # 16 masses of float32, each a product of 4 factors of some ten roundings.
    assert abs(float(mass.detach()) - 1) < 16 * 4 * 10 * 6e-8


def test_the_vae_of_pixels_comes_trained_and_has_a_bound_alone():
    x = (torch.rand(300, 9, generator=torch.Generator().manual_seed(0)) < 0.1).long()
    vae = leaderboard.pixel_vae(x, x[:100], (2,) * 9)
    assert not learnable(vae)
    assert adapt(vae).can("iwae")
    assert not adapt(vae).can("log_prob")


@pytest.mark.parametrize("name", REAL)
def test_a_recipe_of_numbers_makes_a_density(name):
    x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    recipe = getattr(leaderboard, name)
    named = inspect.signature(recipe).parameters
    model = recipe(x, **({"generator": torch.Generator().manual_seed(1)} if "generator" in named else {}))
    rows = x.float() if isinstance(model, torch.nn.Module) else x
    assert math.isfinite(float(model.log_prob(rows).sum().detach()))


def test_every_recipe_is_in_a_leaderboard():
    boards = (leaderboard.bits, leaderboard.reals, leaderboard.levels, leaderboard.pixels)
    listed = {recipe for board in boards for recipe in board.values()}
    recipes = {
        thing
        for name, thing in vars(leaderboard).items()
        if inspect.isfunction(thing) and thing.__module__ == leaderboard.__name__ and not name.startswith("_")
    }
    assert recipes == listed


@pytest.mark.parametrize("name", ["nltcs", "binarized_mnist"])
def test_a_registered_set_brings_its_frontier(name, monkeypatch):
    d = {"nltcs": 16, "binarized_mnist": 784}[name]
    bits = (torch.rand(20, d, generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.uint8)
    monkeypatch.setattr(registered.data, name, lambda path=None: Splits(bits, bits, bits))
    found = made(name, getattr(registered, name)(), 0)
    assert found.levels == (2,) * d
    assert (found.frontier, found.frontier_source) == registered.FRONTIERS[name]
    assert found.image == {"nltcs": None, "binarized_mnist": (28, 28)}[name]
    assert found.split == "as published: 20 / 20 / 20 rows for training / validation / test"
