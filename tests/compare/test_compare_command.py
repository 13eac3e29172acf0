"""`harness compare` as it is called: ranks, reasons, exit status, what a second call keeps, and what it refuses."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.cli import _status
from harness.compare.board import read

MODELS = Path(__file__).parents[1] / "models_for_tests" / "compared.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    np.save(folder / "plane.npy", np.random.default_rng(0).normal(size=(240, 2)) * [1.0, 4.0])
    return folder


def call(folder, *specs: str, options: tuple[str, ...] = (), json="board.json") -> tuple[int, dict]:
    arguments = [spec if ":" in spec else f"{MODELS}:{spec}" for spec in specs]
    written = ["--json", str(folder / json)] if json else []
    fixed = ["--data", str(folder / "plane.npy"), "--budget", "5", "--timeout", "30", "--workers", "2"]
    status = _status(["compare", *arguments, *fixed, *written, *options])
    return status, read(folder / json)


@pytest.fixture(scope="module")
def first(folder):
    """One call with models that conform, fit worse, are wrong, crash, hang and are missing."""
    return call(
        folder, "Independent", "twice", "Narrow", "Boastful", "crashes", "hangs", "missing",
        options=("--html", str(folder / "board.html")),
    )  # fmt: skip


def test_models_that_conform_are_ranked_and_equal_ones_tie(first):
    status, board = first
    assert status == 1  # some are below the line
    ranks = {row["name"]: (row["rank"], row["tied"]) for row in board["rows"] if row["rank"] is not None}
    assert ranks == {"Independent": (1, True), "twice": (1, True), "Narrow": (3, False)}


def test_every_other_model_costs_its_own_row_and_says_why(first):
    reasons = {row["name"]: row["reason"] for row in first[1]["rows"] if row["rank"] is None}
    assert reasons["Boastful"].startswith("no certificate: FAIL")
    assert "SIGABRT" in reasons["crashes"]
    assert "budget of 5 s" in reasons["hangs"]
    assert any("has no 'missing'" in reason for reason in reasons.values())
    assert len(reasons) == 4


def test_the_nll_is_what_a_closed_form_says(first, folder):
    import scipy.stats
    import torch

    from harness.compare.data import load

    data = load(str(folder / "plane.npy"), 0)
    row = next(row for row in first[1]["rows"] if row["name"] == "Independent")
    law = scipy.stats.norm(data.train.mean(0).numpy(), data.train.std(0, correction=0).numpy())
    told = -law.logpdf(data.test.numpy()).sum(1)
    assert np.allclose(row["points"], told, rtol=1e-9)  # stored with ten digits
    assert row["nll"]["mean"] == pytest.approx(torch.tensor(row["points"], dtype=torch.float64).mean().item())


def test_rows_say_how_they_were_made(first):
    row = first[1]["rows"][0]
    assert row["training"]["how"] == "made of the training rows"
    assert row["preprocessing"].startswith("standardised by the training rows")
    assert {"python", "torch", "genharness"} <= set(row["machine"]["versions"])
    assert row["machine"]["threads"] == 1
    assert row["certificate"]["normalised_exactly_by"] == "density.integrates_to_one"
    assert row["cost"]["seconds_per_sample"]["value"] > 0
    assert {point["of"] for point in row["growth"]["n"]} == {"log_prob", "sample"}
    assert "points" not in next(row for row in first[1]["rows"] if row["name"] == "crashes")


def test_the_page_is_there(first, folder):
    assert "Leaderboard on plane" in (folder / "board.html").read_text()


def test_the_same_call_goes_on_from_what_was_finished(first, folder, capsys):
    """As after an interruption: one row is missing, and only that one is made."""
    path = folder / "half.json"
    board = json.loads((folder / "board.json").read_text())
    kept = [row for row in board["rows"] if row["name"] != "Narrow"]
    kept[0]["points"][0] += 1  # a mark that a new measurement would wipe out
    path.write_text(json.dumps({**board, "rows": kept}))
    status, again = call(folder, "Independent", "twice", "Narrow", json="half.json")
    assert "2 of 3 rows are kept" in capsys.readouterr().err
    assert status == 0
    assert {row["name"] for row in again["rows"]} == {row["name"] for row in board["rows"]}
    marked = next(row for row in again["rows"] if row["spec"] == kept[0]["spec"])
    assert marked["points"] == kept[0]["points"]


def test_cuda_where_there_is_none_is_refused_before_anything_is_made(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert _status(["compare", "x.py:y", "--data", "iris", "--device", "cuda,cpu"]) == 2
    assert capsys.readouterr().err == "harness: --device is cuda, but torch finds no CUDA device: choose --device cpu\n"


@pytest.fixture(scope="module")
def seeded(folder):
    """A closed form, whose seeds agree, one that is restless, and one that dies at a seed; by one and three workers."""
    return [
        call(folder, "Independent", "restless", "mortal", options=("--seed", "3,4", *more), json=f"seeded{i}.json")
        for i, more in enumerate([("--workers", "1"), ("--workers", "3", "--html", str(folder / "seeded.html"))])
    ]


def test_a_row_has_every_seed_on_one_split(seeded):
    status, board = seeded[0]
    assert status == 1
    rows = {row["name"]: row for row in board["rows"]}
    assert (board["run"]["seed"], board["run"]["device"]) == ([3, 4], "cpu")
    steady, moved = (rows[name]["nll"] for name in ("Independent", "restless"))
    assert steady["seeds"][0] == steady["seeds"][1]  # one split, or the test rows would be others
    assert steady["sd_of_seeds"] == 0 < moved["sd_of_seeds"]
    assert moved["mean"] == pytest.approx(sum(moved["seeds"]) / 2, rel=1e-9)
    assert [each["certificate"]["seed"] for each in rows["Independent"]["seeds"]] == [3, 4]
    assert rows["Independent"]["certificate"]["alpha"] == pytest.approx(1e-6 / 3)
    assert rows["mortal"]["reason"].startswith("seed 4: Died")


def test_seeds_do_not_depend_on_the_number_of_workers(seeded):
    told = [{row["name"]: (row["rank"], row.get("points")) for row in board["rows"]} for _, board in seeded]
    assert told[0] == told[1]


def test_the_seeds_are_on_the_page(seeded, folder):
    assert "seeds <b>3, 4</b>" in (folder / "seeded.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.py:y"], "no data is given"),
        (["--data", "iris"], "no SPEC is given"),
        (["x.py:y", "x.py:y", "--data", "iris"], "given twice"),
        (["x.py:y", "--data", "iris", "--budget", "0"], "--budget is 0.0"),
        (["x.py:y", "--data", "iris", "--effort", "huge"], "--effort is 'huge'"),
        (["x.py:y", "--data", "iris", "--seed", "0,1,0"], "--seed names 0 twice"),
        (["x.py:y", "--data", "iris", "--seed", "-1"], "--seed is '-1': give a whole number of 0 or more"),
        (["x.py:y", "--data", "iris", "--device", "cpu,tpu"], "--device is 'tpu': choose one of cpu, cuda"),
        (["x.py:y", "--data", "iris", "--json", "no/such/folder/b.json"], "does not exist"),
        (["nowhere.py:y", "--data", "iris"], "there is no file nowhere.py"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_status_2(arguments, said, capsys):
    assert _status(["compare", *arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("harness: ")
    assert said in message


def test_help_says_the_rule_of_training(capsys):
    assert _status(["compare", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "called with the training rows" in words
    assert "taken as it is" in words


def test_ctrl_c_keeps_the_rows_that_were_finished(folder):
    path = folder / "stopped.json"
    command = [sys.executable, "-m", "harness.cli", "compare", f"{MODELS}:Independent", f"{MODELS}:hangs"]
    options = ["--data", str(folder / "plane.npy"), "--budget", "300", "--json", str(path)]
    running = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 240
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    finally:
        running.kill()
    assert [row["name"] for row in read(path)["rows"]] == ["Independent"]
