"""The workflows can be read, their steps are bash, and what the steps call is there, with the options that they give.

Who runs the steps is not here, so this is the cheap part: a renamed option or model turns it red.
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / "suites" / "pr_gate" / "workflow.yml"]
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")
OURS = re.compile(r"^(?:pytest|suites\.|harness\.|reference_impls\.)")
NAMED = re.compile(r"^(?:constraints\.txt|\.ci/\S+|suites/\S+)$")
"""Files of the checkout that a step reads."""


def steps(file):
    """(job, step) for each step; a job without steps is none that GitHub takes."""
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    return [(job, step) for job in told["jobs"].values() for step in job["steps"]]


def scripts(file):
    return [EXPRESSION.sub("expression", step["run"]) for _, step in steps(file) if "run" in step]


def calls(script):
    """The simple commands of a script, as words; what the shell puts in for a variable is left as it stands."""
    joined = script.replace("\\\n", " ")
    for part in re.split(r"\n|;|&&|\|\||[()]", joined):
        words = shlex.split(part, comments=True)
        while words and (words[0] in ("do", "then", "sudo") or re.match(r"\w+=", words[0])):
            words = words[1:]
        if words:
            yield words


def programs(words):
    """What of ours a command starts, and the options that it is given: [([python, ...], options)]."""
    if words[0] == "harness":
        return [(["harness.cli", words[1]], options(words[2:]))]
    if "python" in Path(words[0]).name and words[1:2] == ["-m"] and OURS.match(words[2]):
        return [([words[2]], options(words[3:]))]
    return []


def options(words):
    return [word.partition("=")[0] for word in words if word.startswith("--")]


@cache
def help_of(*program):
    env = {**os.environ, "COLUMNS": "200", "TERM": "dumb", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", *program, "--help"]
    told = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert told.returncode == 0, told.stderr
    return told.stdout


def trouble(script):
    """What a script names that is not there, a line each."""
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    if checked.returncode != 0:
        yield f"bash: {checked.stderr.strip()}"
        return
    for words in calls(script):
        for program, given in programs(words):
            known = help_of(*program)
            absent = [each for each in given if not re.search(rf"(?<![\w-]){each}\b", known)]
            yield from (f"{' '.join(program)} has no {each}" for each in absent)
        yield from (f"there is no {word}" for word in words if not there(word))


def there(word):
    """Is the model, or the file of the checkout, that a word names there? True of a word that names neither."""
    if NAMED.match(word):
        return (ROOT / word).exists()
    if not word.startswith("reference_impls."):
        return True
    module, _, name = word.partition(":")
    return hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_step_is_bash_and_names_what_is_there(file):
    found = scripts(file)
    assert found
    assert [line for script in found for line in trouble(script)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_jobs_say_where_they_run_and_steps_do_one_thing(file):
    for job, step in steps(file):
        assert job["runs-on"]
        assert ("run" in step) != ("uses" in step)
        assert "@" in step.get("uses", "@")


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("for x in 1 2; do echo $x", "bash"),
        ("mkdir -p s && .venv/bin/python -m suites.nightly --devise cpu", "suites.nightly has no --devise"),
        ("python -m suites.nightly --sit x", "suites.nightly has no --sit"),
        ('harness bench "$model" \\\n  --commit main HEAD', "harness.cli bench has no --commit"),
        ("(cd .. && python -m pytest --benchmark-enabled)", "pytest has no --benchmark-enabled"),
        ("for m in reference_impls.made:no_such; do true; done", "there is no reference_impls.made:no_such"),
        ("cp -r suites/hot_path ../base", "there is no suites/hot_path"),
    ],
)
def test_a_wrong_step_is_told(script, line):
    (told,) = trouble(script)
    assert told.startswith(line)


def test_the_nightly_workflow_is_a_call_that_the_command_takes():
    from suites.nightly.__main__ import _parser

    (night,) = [words for script in scripts(ROOT / ".github/workflows/nightly-gpu.yml") for words in calls(script)][-1:]
    call = _parser().parse_args(night[night.index("suites.nightly") + 1 :])
    assert (call.device, str(call.site), call.no_speed) == ("cuda", "site", False)
