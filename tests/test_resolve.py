"""A SPEC names models, or says in one line what to write instead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.resolve import SpecError, resolve

MODELS = Path(__file__).parent / "models_for_tests"
GOOD = MODELS / "good.py"


def names(spec: str) -> list[str]:
    return [model.name for model in resolve(spec)]


@pytest.mark.parametrize("attr", ["plain", "Plain", "factory", "Holder.inside"])
def test_model_class_factory_and_attribute_of_a_class_are_each_one_model(attr):
    (model,) = resolve(f"{GOOD}:{attr}")
    assert type(model.build()).__name__ == "Plain"
    assert (model.name, model.spec) == (attr.rpartition(".")[2], f"{GOOD}:{attr}")


def test_spec_of_a_module_names_what_is_in_it():
    (model,) = resolve("reference_impls.gaussian:correlated")
    assert model.name == "correlated"
    assert model.build().d == 8


def test_members_of_a_list_have_distinct_readable_names():
    assert names(f"{GOOD}:several") == [
        "several[0] Plain",
        "Plain",
        "factory",
        "called by its own name",
        "several[4] Normal",
        "several[5]",
        "several[6]",
    ]
    assert names(f"{GOOD}:same_names") == ["same_names[0] twin", "same_names[1] twin"]
    assert names(f"{GOOD}:by_name") == ["first one", "second"]


@pytest.mark.parametrize("attr", ["several", "same_names", "by_name", "makes_a_list"])
def test_the_spec_of_a_member_names_it_alone(attr):
    for member in resolve(f"{GOOD}:{attr}"):
        (alone,) = resolve(member.spec)
        assert alone.spec == member.spec
        assert type(alone.build()).__name__ == type(member.build()).__name__


def test_factories_in_a_list_are_not_called_before_they_are_wanted():
    plain, broken = resolve(f"{GOOD}:late_trouble")
    plain.build()
    with pytest.raises(RuntimeError, match="not there"):
        broken.build()


def test_files_of_one_folder_can_import_each_other(tmp_path):
    (tmp_path / "helper_of_a_model.py").write_text("from torch.distributions import Normal\nlaw = Normal(0.0, 1.0)\n")
    (tmp_path / "uses_helper.py").write_text("from helper_of_a_model import law\n")
    program = "import sys; from harness.resolve import resolve; print(len(resolve(sys.argv[1])))"
    told = subprocess.run(
        [sys.executable, "-P", "-c", program, f"{tmp_path}/uses_helper.py:law"],
        capture_output=True,
        text=True,
        cwd=tmp_path.parent,
        env=os.environ,
    )
    assert told.stdout.strip() == "1", told.stderr


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("no_such_name", "no model is registered as 'no_such_name'"),
        ("", "no model is registered"),
        ("reference_impls.gaussian:", "package.module:attr"),
        ("reference_impls.gaussian:1x", "package.module:attr"),
        ("reference_impls.gausian:standard", "did you mean 'gaussian'"),
        ("reference_imps.gaussian:standard", "did you mean 'reference_impls'"),
        ("reference_impls.gaussian:corelated", "did you mean 'correlated'?"),
        ("reference_impls.gaussian.standard:x", "write reference_impls.gaussian:standard"),
        (f"{MODELS}/god.py:plain", "did you mean 'good.py'?"),
        ("nowhere/good.py:plain", "there is no file nowhere/good.py; check the path"),
        (f"{GOOD}:plian", "did you mean 'plain' or 'Plain'?"),
        (f"{GOOD}:number", "is no model"),
        (f"{GOOD}:empty", "is empty: put a model or a factory in it"),
        (f"{GOOD}:mixed", "mixed[1]"),
        (f"{GOOD}:needs_arguments", "needs arguments (scale)"),
        (f"{GOOD}:broken_factory", "calling broken_factory() failed: RuntimeError: the weights are not there (good.py"),
        (f"{GOOD}:plain[0]", "is one Plain, no list: leave [0] out"),
        (f"{GOOD}:several[9]", "it has [0] to [6]"),
        (f"{GOOD}:by_name[secnd]", "did you mean 'second'?"),
        (
            f"{MODELS}/import_fails.py:x",
            "ModuleNotFoundError: No module named 'a_package_that_nobody_has' (import_fails",
        ),
        ("torch:no_such_thing_at_all", "torch has no 'no_such_thing_at_all'"),
        ("torch.distributions:Normal", "needs arguments (loc, scale)"),
    ],
)
def test_what_names_no_model_is_refused_in_one_line_that_names_the_fix(spec, said):
    with pytest.raises(SpecError) as refused:
        resolve(spec)
    message = str(refused.value)
    assert said in message
    assert "\n" not in message
