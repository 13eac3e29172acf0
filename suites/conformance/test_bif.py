"""BIF files: the forms in which tables are written, the networks that pgmpy ships, and mistakes by name."""

import gzip
import importlib.util
from pathlib import Path

import pytest
import torch

from reference_impls import bayesian_network, bif

ASIA = """
// Lauritzen and Spiegelhalter
network asia { property author "somebody; with a semicolon" ; }
variable asia { type discrete [ 2 ] { yes, no }; }
variable tub { type discrete [ 2 ] { yes, no }; /* between
two lines */ }
variable smoke { type discrete [ 2 ] { yes, no }; property position = (1, 2) ; }
variable lung { type discrete [ 2 ] { yes, no }; }
variable bronc { type discrete[2] {yes no}; }
variable either { type discrete [ 2 ] { "yes", "no" }; }
variable xray { type discrete [ 2 ] { yes, no }; }
variable dysp { type discrete [ 2 ] { yes, no }; }
probability ( asia ) { table 0.01, 0.99; }
probability ( tub | asia ) { (yes) 0.05, 0.95; (no) 1e-2, 0.99; }
probability ( smoke ) { table 0.5 0.5; }
probability ( lung | smoke ) { table 0.1, 0.01, 0.9, 0.99; }
probability ( bronc | smoke ) { (no) 0.3, 0.7; (yes) 0.6, 0.4; }
probability ( either | lung, tub ) { default 1.0, 0.0; (no, no) 0.0, 1.0; }
probability ( xray | either ) { (yes) 0.98, 0.02; (no) 0.05, 0.95; }
probability ( dysp | bronc, either ) {
  (yes, yes) 0.9, 0.1; (no, yes) 0.7, 0.3; (yes, no) 0.8, 0.2; (no, no) 0.1, 0.9; }
"""
ONE = "network n {} variable a { type discrete [ 3 ] { x, y, z }; } probability ( a ) { table %s; }"


def shipped():
    spec = importlib.util.find_spec("pgmpy")
    return Path(spec.submodule_search_locations[0]) / "utils" / "example_models" if spec else None


def needs_pgmpy():
    if shipped() is None or not shipped().is_dir():
        pytest.skip("pgmpy, whose wheel holds the networks, is not installed")


def test_every_form_of_a_table_is_read():
    model, oracle = bif.parse(ASIA), bayesian_network.asia(dtype=torch.float64)
    assert model.names == oracle.names
    assert model.labels == oracle.labels
    assert model.parents == oracle.parents
    # 1 - 0.95 is one rounding from 0.05
    assert all(torch.allclose(a, b, rtol=0, atol=2**-52) for a, b in zip(model.tables, oracle.tables, strict=True))


def test_files_may_be_packed(tmp_path):
    plain, packed = tmp_path / "asia.bif", tmp_path / "asia.bif.gz"
    plain.write_text(ASIA)
    packed.write_bytes(gzip.compress(ASIA.encode()))
    assert bif.read(plain).names == bif.read(str(packed)).names


def test_rows_sum_to_one_as_far_as_their_digits_tell():
    assert bif.parse(ONE % "0.333, 0.333, 0.333").tables[0].tolist() == [1 / 3] * 3
    with pytest.raises(ValueError, match=r"sums to 0\.996, not 1 as far as its digits tell"):
        bif.parse(ONE % "0.332, 0.332, 0.332")


# Variables and free parameters as the Bayesian network repository states them, bnlearn.com/bnrepository.
SIZES = {"asia": (8, 18), "cancer": (5, 10), "earthquake": (5, 10), "sachs": (11, 178), "survey": (6, 21)}
SIZES |= {"alarm": (37, 509), "child": (20, 230), "hailfinder": (56, 2656), "hepar2": (70, 1453), "win95pts": (76, 574)}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_networks_of_the_repository(name):
    needs_pgmpy()
    model = bif.read(shipped() / f"{name}.bif.gz")
    assert (model.d, len(model.parameters())) == SIZES[name]
    x = model.sample(100, generator=torch.Generator().manual_seed(0))
    assert model.log_prob(x).isfinite().all()


def test_the_shipped_asia_is_ours():
    needs_pgmpy()
    model, oracle = bif.read(shipped() / "asia.bif.gz"), bayesian_network.asia(dtype=torch.float64)
    order = [model.names.index(name) for name in oracle.names]
    x = oracle.sample(200, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.reordered(order).log_prob(x), oracle.log_prob(x), rtol=0, atol=100 * 2**-52)


def test_elimination_in_a_larger_network_agrees_with_draws():
    needs_pgmpy()
    model = bif.read(shipped() / "alarm.bif.gz")
    n = 20_000
    x = model.sample(n, generator=torch.Generator().manual_seed(0))
    for i in range(model.d):
        exact = model.table([i])
        shares = x[:, i].bincount(minlength=model.states[i]) / n
        assert (shares - exact).abs().max() <= 5.5 / (2 * n**0.5)  # at most 4e-8 for each of 105 shares
    posterior = model.conditional([0, 5, 20], x[0, [0, 5, 20]])
    rest = [i for i in range(model.d) if i not in (0, 5, 20)]
    whole, given = model.log_prob(x[:1]), model.marginal([0, 5, 20]).log_prob(x[:1, [0, 5, 20]])
    assert abs(posterior.log_prob(x[:1, rest]) - (whole - given)) <= 1e4 * 2**-52  # 37 logarithms below 10, sums of few


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ONE % "0.5, 0.5", "a should have 3 numbers between 0 and 1 in each row"),
        (ONE % "0.5, 0.6, -0.1", "between 0 and 1"),
        (ONE % "0.5, 0.5, nan", "between 0 and 1"),
        (ONE % "0.5, 0.5, what", "not all numbers"),
        (ONE.replace("[ 3 ]", "[ 2 ]") % "1, 0", "variable a should have 2 different states"),
        (ONE.replace("( a )", "( b )") % "1, 0, 0", r"no probability block for the variables \['a'\]"),
        (ONE.replace("( a )", "( a | b )") % "1, 0, 0", r"names \['b'\], which no variable block declares"),
        (ONE[:50], "where .* should be"),
        ((ONE % "1, 0, 0").replace("table", "tabel"), "'tabel' where .* table"),
        ((ONE % "1, 0, 0") + " } ", "'}' where network or variable or probability"),
        (ASIA.replace("(no) 1e-2, 0.99;", ""), r"tub has no row for \('no',\); add it, or a default"),
        (ASIA.replace("(no) 1e-2", "(maybe) 1e-2"), "tub has a row for .*maybe"),
        (ASIA.replace("( asia ) { table 0.01, 0.99;", "( asia | tub ) { default 0.01, 0.99;"), "cycle"),
        (ASIA.replace("table 0.1, 0.01, 0.9, 0.99", "table 0.1, 0.01, 0.9"), "lung should have 4 numbers, not 3"),
        ("", "tables should be one for each of 0 variables"),
    ],
)
def test_mistakes_are_named(text, complaint, tmp_path):
    path = tmp_path / "x.bif"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as error:
        bif.read(path)
    assert str(path) in str(error.value)


def test_what_is_no_text_is_named(tmp_path):
    path = tmp_path / "x.bif"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"cannot be read as a BIF file .* give a \.bif or \.bif\.gz"):
        bif.read(path)
    with pytest.raises(ValueError, match="cannot be read as a BIF file"):
        bif.read(tmp_path / "missing")
