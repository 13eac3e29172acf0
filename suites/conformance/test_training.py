"""Training: Adam by hand, minibatches counted, runs that are killed and go on, files that are of something else."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from reference_impls import training
from reference_impls.training import Player, load, load_model, save, save_model, train

ROWS, STEPS = 40, 24


class Line(nn.Module):
    """y = w x + b, and a noise that the loss draws."""

    def __init__(self, width=1):
        super().__init__()
        self.w = nn.Parameter(torch.full((width,), 0.5))
        self.b = nn.Parameter(torch.zeros(width))

    def loss(self, x, *, generator):
        noise = 0.1 * torch.randn(len(x), generator=generator)
        return (self.w * x + self.b + noise[:, None] - 2 * x - 1).square().mean()


def data(seed=0):
    return torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(seed))


def trained(path=None, **changes):
    """A model and its losses; `changes` of the run that all tests share."""
    model = changes.pop("model", None) or Line()
    options = {"steps": STEPS, "batch": 8, "rate": 0.05, "every": 5, "checkpoint": path, **changes}
    x = options.pop("x", None)
    return model, train(model, options.pop("loss", None) or model.loss, data() if x is None else x, **options)


def same(one, other):
    """The same in every bit: parameters and losses."""
    (model, losses), (model_too, losses_too) = one, other
    mine, theirs = model.state_dict(), model_too.state_dict()
    return torch.equal(losses, losses_too) and all(torch.equal(mine[name], theirs[name]) for name in mine)


# A run is a function of its seed


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    assert same(trained(), trained())
    assert not same(trained(), trained(seed=1))


def test_the_global_generator_neither_matters_nor_moves():
    before = torch.get_rng_state()
    once = trained()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert same(once, trained())


def test_the_model_is_left_in_evaluation_mode_and_was_in_training_mode_before():
    modes = []

    class Watching(Line):
        def loss(self, x, *, generator):
            modes.append(self.training)
            return super().loss(x, generator=generator)

    model, _ = trained(model=Watching().eval())
    assert modes == [True] * STEPS
    assert not model.training


# Killed and resumed

CHILD = """
import os, signal, sys
import torch
from suites.conformance.test_training import Line, trained

torch.set_num_threads(1)
calls = 0

class Killed(Line):
    def loss(self, x, *, generator):
        global calls
        calls += 1
        if calls == 13:  # step 12; the last checkpoint is that of 10 steps
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(x, generator=generator)

trained(sys.argv[1], model=Killed())
"""


def test_a_run_that_is_killed_goes_on_from_its_checkpoint_as_if_nothing_had_been(tmp_path):
    path = tmp_path / "run.pt"
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(CHILD), str(path)], timeout=120, check=False)
    assert child.returncode == -signal.SIGKILL
    assert int(load(path)["step"]) == 10
    seen = []

    class Counting(Line):
        def loss(self, x, *, generator):
            seen.append(x)
            return super().loss(x, generator=generator)

    assert same(trained(), trained(path, model=Counting()))
    assert len(seen) == STEPS - 10
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("stop", [1, 5, 6, STEPS - 1])
def test_a_run_that_stops_anywhere_goes_on_to_the_same_end(tmp_path, stop):
    class Stopping(Line):
        calls = 0

        def loss(self, x, *, generator):
            self.calls += 1
            if self.calls == stop + 1:
                raise KeyboardInterrupt
            return super().loss(x, generator=generator)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run.pt", model=Stopping(), clip=0.5)
    assert same(trained(clip=0.5), trained(tmp_path / "run.pt", clip=0.5))


def test_a_run_that_was_finished_is_not_made_again(tmp_path):
    class Untouchable(Line):
        def loss(self, x, *, generator):
            raise AssertionError("no step is left")

    assert same(trained(tmp_path / "run.pt"), trained(tmp_path / "run.pt", model=Untouchable()))


def test_two_players_go_on_where_they_were(tmp_path):
    def run(path, stop=math.inf):
        model, calls = Line(), []

        def second(x, *, generator):
            calls.append(1)
            if len(calls) > stop:
                raise KeyboardInterrupt
            return model.loss(x, generator=generator)

        first = Player([model.w], model.loss, 0.1, (0.5, 0.9))  # twice a step, with one optimiser
        players = [first, first, Player([model.b], second, 0.01)]
        return model, train(model, players, data(), steps=STEPS, batch=8, every=5, checkpoint=path)

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run.pt", stop=13)
    assert same(whole, run(tmp_path / "run.pt"))


# Files


def test_a_checkpoint_is_tensors_alone(tmp_path):
    trained(tmp_path / "run.pt")
    found = torch.load(tmp_path / "run.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in found.values())


@pytest.mark.parametrize("when", ["save", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, when):
    path = tmp_path / "file.pt"
    save(path, {"a": torch.ones(3)})

    def fails(*args):
        raise OSError("no space left")

    def half(tensors, beside):
        beside.write_bytes(b"half of it")
        fails()

    monkeypatch.setattr(*((torch, "save", half) if when == "save" else (training.os, "replace", fails)))
    with pytest.raises(OSError, match="no space left"):
        save(path, {"a": torch.zeros(3)})
    assert torch.equal(load(path)["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps": 30}, "other steps"),
        ({"batch": 4}, "other batch"),
        ({"rate": 0.01}, "other rate"),
        ({"decay": False}, "other decay"),
        ({"clip": 1.0}, "other clip"),
        ({"seed": 3}, "other seed"),
        ({"x": data(1)}, "other data"),
        ({"x": data().double()}, "other data"),
        ({"model": Line(2)}, "another architecture: w is .1,., and .2,. is wanted"),
        ({"model": nn.Linear(1, 1), "loss": Line().loss}, "another architecture"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path, change, what):
    trained(tmp_path / "run.pt")
    with pytest.raises(ValueError, match=f"run.pt is .*{what}.*; delete the file|run.pt is .*{what}: delete the file"):
        trained(tmp_path / "run.pt", **change)


def test_a_refused_checkpoint_changes_no_parameter(tmp_path):
    trained(tmp_path / "run.pt")
    model = Line()
    with pytest.raises(ValueError, match="other seed"):
        trained(tmp_path / "run.pt", model=model, seed=3)
    assert torch.equal(model.w, Line().w)


def damaged(path):
    whole = path.read_bytes()
    yield whole[: len(whole) // 2]
    yield b""
    yield b"not a checkpoint"
    yield whole[:300] + bytes(200) + whole[500:]


@pytest.mark.parametrize("which", range(4))
def test_a_damaged_file_is_one_clear_error(tmp_path, which):
    path = tmp_path / "run.pt"
    trained(path)
    path.write_bytes(list(damaged(path))[which])
    with pytest.raises(ValueError, match=r"run.pt is no checkpoint of this version, or is damaged"):
        trained(path)


class Arbitrary:
    """What weights_only=True must not build."""

    def __reduce__(self):
        return (pytest.fail, ("a file was allowed to run code",))


@pytest.mark.parametrize(
    "content", [{"format": torch.tensor(1), "x": Arbitrary()}, [1, 2], {"format": torch.tensor(99)}]
)
def test_a_file_of_something_else_is_one_clear_error(tmp_path, content):
    torch.save(content, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="is no checkpoint of this version"):
        trained(tmp_path / "run.pt")


def test_parameters_alone_are_no_run_to_go_on_with(tmp_path):
    save_model(tmp_path / "model.pt", Line())
    with pytest.raises(ValueError, match=r"only parameters.*load_model"):
        trained(tmp_path / "model.pt")


def test_a_folder_that_is_not_there_is_said_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be written: make the folder"):
        trained(tmp_path / "nowhere" / "run.pt", loss=lambda x, *, generator: pytest.fail("a step was made"))


def test_parameters_come_back_bit_for_bit_and_into_no_other_architecture(tmp_path):
    model, _ = trained()
    save_model(tmp_path / "model.pt", model)
    other = Line()
    load_model(tmp_path / "model.pt", other)
    assert torch.equal(other.w, model.w)
    assert torch.equal(other.b, model.b)
    with pytest.raises(ValueError, match="another architecture"):
        load_model(tmp_path / "model.pt", Line(3))


# Mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(0, 1)}, "at least one"),
        ({"x": (torch.zeros(9, 1), torch.zeros(8))}, "equally many rows"),
        ({"batch": ROWS + 1}, f"batch = {ROWS + 1} is more than the {ROWS} rows of the data"),
        ({"batch": 0}, "batch = 0"),
        ({"every": 0}, "every = 0"),
        ({"steps": -1}, "steps = -1"),
        ({"loss": lambda x, *, generator: x.mean()}, "a scalar with a graph"),
        ({"loss": lambda x, *, generator: (x * nn.Parameter(torch.ones(1)))[:, 0]}, "a scalar with a graph"),
    ],
)
def test_a_mistake_is_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        trained(**change)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, bad):
    class Diverging(Line):
        calls = 0

        def loss(self, x, *, generator):
            self.calls += 1
            return super().loss(x, generator=generator) * (bad if self.calls == 8 else 1)

    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step 7: lower the rate \(0.05\)"):
        trained(tmp_path / "run.pt", model=Diverging())
    assert same(trained(), trained(tmp_path / "run.pt"))


def test_a_finite_loss_with_a_gradient_that_is_not_never_reaches_the_checkpoint(tmp_path):
    class Cusp(Line):
        calls = 0

        def loss(self, x, *, generator):
            self.calls += 1
            value = super().loss(x, generator=generator)
            return value + (self.w * 0).sqrt().sum() if self.calls == 10 else value  # slope 0 / 0

    with pytest.raises(FloatingPointError, match="w is no longer finite after step 9"):
        trained(tmp_path / "run.pt", model=Cusp())
    assert int(load(tmp_path / "run.pt")["step"]) == 5


# The steps themselves


def adam(w, gradients, rates, betas):
    """Kingma & Ba, algorithm 1, with eps = 1e-8, in Python's numbers."""
    m = v = 0.0
    path = []
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = gradient(w)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        w -= rate * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + 1e-8)
        path.append(w)
    return path


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_steps_are_those_of_adam_by_hand(decay, clip):
    """The loss (w - 3)^2 / 2 has the gradient w - 3. Twelve steps of some 20 roundings: 240 eps of sizes up to 3."""
    seen = []

    class Parabola(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def loss(self, x, *, generator):
            seen.append(float(self.w.detach()))
            return (self.w - 3).square() / 2

    model, rate = Parabola(), 0.2
    train(model, model.loss, data(), steps=12, batch=8, rate=rate, decay=decay, clip=clip)

    def gradient(w):  # clip_grad_norm_ divides by the norm + 1e-6
        g = w - 3
        return g if clip is None else g * min(1.0, clip / (abs(g) + 1e-6))

    rates = [rate * ((1 + math.cos(math.pi * t / 12)) / 2 if decay else 1) for t in range(12)]
    wanted = adam(0.0, [gradient] * 12, rates, (0.9, 0.999))
    assert [*seen[1:], float(model.w.detach())] == pytest.approx(
        wanted, rel=0, abs=240 * 3 * torch.finfo(torch.float64).eps
    )


def test_the_rate_falls_from_its_full_value_to_almost_none():
    """Adam's first steps on a constant gradient are of size rate: half a cosine, 1 at first, and 0 at the end."""
    path = [0.0]

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def loss(self, x, *, generator):
            path.append(float(self.w.detach()))
            return -self.w

    model = Slope()
    train(model, model.loss, data(), steps=8, batch=8, rate=0.5)
    moves = torch.tensor([*path[2:], float(model.w.detach())]) - torch.tensor(path[1:])
    wanted = 0.5 * (1 + torch.cos(torch.pi * torch.arange(8) / 8)) / 2
    # m / sqrt(v) is 1 up to eps = 1e-8 of Adam and to rounding: float32 of the comparison, half a unit in 1 each
    assert torch.allclose(moves, wanted, rtol=0, atol=1e-8 + 8 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize(("n", "batch"), [(40, 8), (41, 8), (7, 7), (5, 1)])
def test_an_epoch_takes_no_row_twice_and_all_rows_where_the_batch_divides_them(n, batch):
    x = torch.arange(float(n))[:, None]
    seen = []

    class Watching(Line):
        def loss(self, x, *, generator):
            seen.append(x[:, 0].long())
            return super().loss(x, generator=generator)

    per_epoch = n // batch
    trained(model=Watching(), x=x, batch=batch, steps=3 * per_epoch)
    epochs = [torch.cat(seen[e * per_epoch : (e + 1) * per_epoch]).tolist() for e in range(3)]
    for rows in epochs:
        assert len(set(rows)) == len(rows) == per_epoch * batch
    if n % batch == 0 and n > 7:
        assert epochs[0] != epochs[1] != epochs[2]  # each in an order of its own: alike by chance once in 40!


def test_tables_keep_their_rows_together():
    x, y = torch.arange(float(ROWS)), torch.arange(ROWS) + 100
    seen = []
    model = Line()

    def loss(x, y, *, generator):
        seen.append(torch.equal(x.long() + 100, y))
        return model.w.sum()

    train(model, loss, (x, y), steps=10, batch=8)
    assert seen == [True] * 10


def test_players_move_in_turn_and_each_moves_its_own_parameters():
    model, turns = Line(), []

    def player(name, mine, other):
        def loss(x, *, generator):
            turns.append((name, float(mine), float(other)))
            return model.loss(x, generator=generator)

        return Player([mine], loss, 0.1)

    train(model, [player("w", model.w, model.b), player("b", model.b, model.w)], data(), steps=6, batch=8)
    assert [name for name, _, _ in turns] == ["w", "b"] * 6
    for (_, w, b), (_, b_too, w_after) in zip(turns[::2], turns[1::2], strict=True):
        assert b == b_too
        assert w != w_after
    assert model.w.grad is not None
    assert len({b for _, _, b in turns[::2]}) == 6


def test_players_draw_from_streams_of_their_own():
    model, drawn = Line(), []

    def loss(x, *, generator):
        drawn.append(float(torch.rand((), generator=generator)))
        return model.loss(x, generator=generator)

    train(model, [Player([model.w], loss), Player([model.b], loss)], data(), steps=4, batch=8)
    assert len(set(drawn)) == 8


def test_no_step_at_all_changes_nothing():
    model, losses = trained(steps=0)
    assert losses.shape == (0,)
    assert torch.equal(model.w, Line().w)


# Progress


def test_progress_ends_with_a_full_bar_and_the_mean_of_the_last_losses(capsys):
    _, losses = trained(progress=True)
    lines = capsys.readouterr().err
    assert lines.endswith("\n")
    assert lines.count("\n") == 1
    last = lines.split("\r")[-1]
    assert last.startswith(f"[{'#' * 30}] {STEPS}/{STEPS}  loss {float(losses.mean()):.4f}  0 s left")


def test_without_progress_nothing_is_printed(capsys):
    trained()
    assert capsys.readouterr() == ("", "")
