"""What data is taken, how it is split, and what is refused."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from harness.compare import data as module
from harness.compare.data import DataError, load, made


def table(n: int = 40, d: int = 2) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def files(tmp_path):
    x = table().numpy()
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    torch.save(torch.from_numpy(x), tmp_path / "x.pt")
    lines = [",".join(map(repr, row)) for row in x.tolist()]
    (tmp_path / "x.csv").write_text("a,b\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_every_kind_of_file_holds_the_same_rows(files):
    sets = [load(str(files / f"x{end}"), 3) for end in (".npy", ".npz", ".pt", ".csv")]
    assert {each.fingerprint() for each in sets} == {sets[0].fingerprint()}
    assert sets[0].levels is None
    assert sets[0].name == "x"


@pytest.mark.parametrize("end", [".npy", ".npz", ".csv", ".pt"])
def test_a_damaged_file_is_named_with_what_to_do(files, end):
    path = files / f"x{end}"
    path.write_bytes(path.read_bytes()[:40] + b"\xff\x00")
    with pytest.raises(DataError, match=path.name):
        load(str(path), 0)


def test_nothing_in_a_file_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    torch.save(Trap(), tmp_path / "trap.pt")
    for name in ("trap.npy", "trap.pt"):
        with pytest.raises(DataError, match=r"damaged|no array of numbers") as refused:
            load(str(tmp_path / name), 0)
        for advice in ("weights_only", "allow_pickle"):  # torch's and numpy's own texts say how to trust the file
            assert advice not in str(refused.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n\n3,x\n" + "1,2\n" * 20, "line 4, '3,x', is not 2 numbers between commas"),
        ("1,2\n3\n" + "1,2\n" * 20, "line 2, '3', is not 2 numbers"),
        ("1.5,\n" + "1,2\n" * 20, "line 1, '1.5,', is not 2 numbers"),  # a gap, and no line of names
        ("1.5;2.5\n" * 20, "line 2, '1.5;2.5', is not 1 numbers between commas"),
        ("a,b\n", "no rows of numbers"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, text, said):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        load(str(tmp_path / "x.csv"), 0)


def test_sparse_tensors_and_long_doubles_are_numbers_too(tmp_path):
    x = table()
    torch.save(x.to_sparse(), tmp_path / "s.pt")
    np.save(tmp_path / "l.npy", x.numpy().astype(np.longdouble))
    whole = made("x", x, 0).fingerprint()
    assert load(str(tmp_path / "s.pt"), 0).fingerprint() == load(str(tmp_path / "l.npy"), 0).fingerprint() == whole


def test_a_split_is_of_the_seed_and_leaves_out_no_row():
    x = torch.arange(100.0).reshape(100, 1)
    one, same, other = made("x", x, 1), made("x", x, 1), made("x", x, 2)
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert sorted(torch.cat([one.train, one.valid, one.test]).flatten().tolist()) == x.flatten().tolist()
    assert [len(part) for part in (one.train, one.valid, one.test)] == [60, 15, 25]
    assert "seed 1" in one.split


def test_published_splits_are_kept(tmp_path):
    parts = {"train": table(30), "val": table(10), "test": table(12)}
    np.savez(tmp_path / "s.npz", **{name: part.numpy() for name, part in parts.items()})
    read = load(str(tmp_path / "s.npz"), 0)
    assert torch.equal(read.valid, parts["val"])
    assert torch.equal(read.test, parts["test"])
    assert read.split.startswith("as published")


def test_integers_are_states_and_floats_are_not(tmp_path):
    bits = (table(40, 3) > 0).long()
    assert made("x", bits, 0).levels == (2, 2, 2)
    assert made("x", bits.double(), 0).levels is None
    assert made("x", {"x": bits.double(), "discrete": True}, 0).levels == (2, 2, 2)
    (tmp_path / "b.csv").write_text("\n".join(",".join(map(str, row)) for row in bits.tolist()))
    assert load(str(tmp_path / "b.csv"), 0).levels == (2, 2, 2)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (torch.full((40, 2), -1), "states 0, 1, 2"),
        (torch.ones(40, 2), "column 0 is constant"),
        (torch.full((40, 2), 0.1, dtype=torch.float64), "column 0 is constant"),  # its deviation is 1e-17, not 0
        (torch.ones(40, 0), "no columns"),
        (torch.ones(4, 2), "too few to split"),
        (table().log(), "NaN or infinity, the first in column"),
        ({"train": table(), "valid": table(20), "test": table(20, 3)}, "columns"),
        ({"y": table()}, "give x, or train"),
        ("text", "no table of numbers"),
    ],
)
def test_what_is_no_data_is_refused(found, said):
    with pytest.raises(DataError, match=said):
        made("x", found, 0)


def test_the_ceiling_is_the_entropy_of_the_test_rows():
    test = torch.tensor([[0, 1]] * 5 + [[1, 1]] * 3 + [[1, 0]] * 2)
    seen = made("x", (test, test, test), 0)
    # Three terms, each rounded by 2^-53 of itself.
    assert abs(seen.ceiling() - scipy.stats.entropy([5, 3, 2])) < 1e-15
    assert made("x", table(), 0).ceiling() is None


def test_no_law_of_the_states_has_a_lower_nll_than_the_ceiling():
    source = torch.Generator().manual_seed(0)
    test = torch.randint(0, 3, (60, 1), generator=source)
    ceiling = made("x", (test, test, test), 0).ceiling()
    for _ in range(50):
        q = torch.rand(3, generator=source, dtype=torch.float64)
        assert float(-(q / q.sum()).log()[test].mean()) >= ceiling


def test_names_inside_scikit_learn_are_known():
    digits = load("digits", 0)
    assert (digits.d, digits.image, max(digits.levels)) == (64, (8, 8), 17)
    assert load("iris", 0).levels is None


def test_registered_names_are_found_and_unknown_ones_get_a_hint(monkeypatch):
    class Entry:
        name = "coins"

        def load(self):
            return lambda: {"x": (table() > 0).long(), "frontier": 1.2, "frontier_source": "Bernoulli 1713"}

    monkeypatch.setattr(module, "entry_points", lambda group: [Entry()] if group == module.GROUP else [])
    coins = load("coins", 0)
    assert (coins.frontier, coins.facts()["frontier_source"]) == (1.2, "Bernoulli 1713")
    with pytest.raises(DataError, match="did you mean 'coins'"):
        load("coin", 0)
    with pytest.raises(DataError, match="there is no such file"):
        load("nowhere.npy", 0)


def test_a_function_by_its_spec_is_data_too():
    with pytest.raises(DataError, match="AttributeError"):
        load("sklearn.datasets:load_nothing", 0)


def test_facts_are_strict_json():
    import json

    assert math.isfinite(json.loads(json.dumps(made("x", (table() > 0).long(), 0).facts(), allow_nan=False))["d"])
