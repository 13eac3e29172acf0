"""Progress: a line a model where nobody can redraw, a live table on a terminal."""

import io

from rich.console import Console

from harness.display import Display
from harness.evidence import Absent, Exact, Record, Verdict


def record(model: str, verdict: Verdict) -> Record:
    evidence = Exact(0.0, 0.0, 1) if verdict is Verdict.PASS else Absent("for a reason")
    return Record(model, "a.check", verdict, evidence, 0.0, 0.0, "")


def shown(*, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with Display(console) as display:
        display.say("examining 2 models", 2)
        display.at("first", "density.bridge_mass", 4096)
        display.drawn = 0.0
        display.tick()
        for verdict in (Verdict.PASS, Verdict.PASS, Verdict.SKIP):
            display.record(record("first", verdict))
        display.done("first")
        display.done("never \x1b[31mstarted")
    return file.getvalue()


def test_plain_lines_say_what_was_decided_and_nothing_is_redrawn():
    text = shown(terminal=False)
    first, second, third = text.splitlines()
    assert first == "examining 2 models"
    assert second.startswith("[1/2] first  2 PASS  1 SKIP  ")
    assert third.startswith("[2/2] never")
    assert "\x1b" not in text


def test_a_terminal_shows_the_check_and_the_draws():
    text = shown(terminal=True)
    assert "density.bridge_mass" in text
    assert "4,096 draws" in text
    assert "[1/2] first  2 PASS  1 SKIP" in text


def test_a_model_s_name_cannot_rewrite_the_terminal():
    assert "\x1b[31mstarted" not in shown(terminal=True)
