"""pytest plugin: one test per model and check, by a decorator or by `pytest --conformance SPEC`.

    @parametrize_with_checks([MyFlow(), torch.distributions.Normal(0.0, 1.0)])
    def test_conforms(model, check):
        check(model)

All checks of a model share their draws, so a process examines a model once, when the first of its tests is run; each
test then looks up its own record. Draws are a function of the seed, hence every xdist worker that gets tests of a model
finds the same records. Run with `--dist loadgroup` to keep a model's tests on one worker.

Imported at the start of every pytest run, so nothing here imports torch before it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from harness.effort import EFFORTS, FALSE_ALARM_BUDGET, Effort, effort_named
from harness.pytest_outcome import Examination, InconclusiveWarning, ModelCheck, ModelError

if TYPE_CHECKING:
    import torch

    from harness.plan import Planned

__all__ = ["InconclusiveWarning", "ModelError", "parametrize_with_checks"]

# ------------------------------------------------------------------------------------------------- the decorator


def parametrize_with_checks(
    models: Iterable[object],
    *,
    effort: str | Effort = "standard",
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
    only: Iterable[str] = (),
    alpha: float = FALSE_ALARM_BUDGET,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> pytest.MarkDecorator:
    """Parametrise `test(model, check)` over models and the checks of each: the test calls `check(model)`.

    `alpha` is the probability of any false failure in all of these tests together. `expected_failures` maps "check.id",
    for every model, or "model::check.id" to a reason; such a test must fail (strict), and a key that names no test is
    an error. Models are named after their types, and numbered where several have one name.
    """
    things = list(models)
    if not things:
        raise pytest.Collector.CollectError("parametrize_with_checks got no model: put at least one in its list")
    common = {"seed": seed, "effort": effort_named(effort), "only": tuple(only), "dtype": dtype, "device": device}
    examinations = [
        Examination(name, thing, share=alpha / len(things), expected=expected_failures or {}, **common)  # type: ignore[arg-type]
        for name, thing in zip(_names(things), things, strict=True)
    ]
    plans = [_planned(examination) for examination in examinations]
    _require_matches(expected_failures or {}, examinations, plans)
    return pytest.mark.parametrize(
        ("model", "check"),
        [
            pytest.param(
                examination.thing,
                ModelCheck(item.check.id, examination),
                id=f"{examination.name}-{item.check.id}",
                marks=[pytest.mark.conformance, pytest.mark.xdist_group(examination.name)],
            )
            for examination, planned in zip(examinations, plans, strict=True)
            for item in planned
        ],
    )


def _names(things: Sequence[object]) -> list[str]:
    """The models' own names or their types' names, numbered where they are not distinct."""
    names = [_name(thing) for thing in things]
    return [name if names.count(name) == 1 else f"{name}{names[:i].count(name)}" for i, name in enumerate(names)]


def _name(thing: object) -> str:
    from harness.model import Model

    return thing.name if isinstance(thing, Model) else type(thing).__name__


def _planned(examination: Examination) -> tuple[Planned, ...]:
    """The plan of one model; one clear line where there can be none."""
    from harness.adapters import NotAModel

    try:
        return examination.plan(examination.adapted(examination.thing))
    except (NotAModel, KeyError) as error:  # a KeyError is an unknown name in `only`
        raise pytest.Collector.CollectError(str(error.args[0])) from None


def _require_matches(
    expected: Mapping[str, str], examinations: Sequence[Examination], plans: Sequence[Sequence[Planned]]
) -> None:
    """Every expected failure has a reason and names a test."""
    pairs = [(e.name, item) for e, planned in zip(examinations, plans, strict=True) for item in planned]
    keys = {f"{name}::{item.check.id}" for name, item in pairs} | {i.check.id for _, i in pairs if not i.skip}
    for key, reason in expected.items():
        if not (isinstance(reason, str) and reason.strip()):
            raise pytest.Collector.CollectError(
                f"expected failure {key!r} has no reason: say why it fails, as a string"
            )
        if key not in keys:
            raise pytest.Collector.CollectError(
                f"expected failure {key!r} ({reason}) matches no check that is made: correct or remove it"
            )


# ------------------------------------------------------------------------------------------- pytest --conformance


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "conformance of generative models")
    group.addoption(
        "--conformance", action="append", default=[], metavar="SPEC", help="examine package.module:attr or file.py:attr"
    )
    group.addoption("--conformance-effort", choices=list(EFFORTS), default="standard", help="sample budget, tolerance")
    group.addoption("--conformance-seed", type=int, default=0, metavar="N", help="seed of every random stream")
    group.addoption("--conformance-strict", action="store_true", help="let INCONCLUSIVE fail, in decorated tests too")


EXAMINATIONS = pytest.StashKey[list[Examination]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance: a check of a generative model")
    if not config.pluginmanager.hasplugin("xdist"):
        config.addinivalue_line("markers", "xdist_group(name): tests that pytest-xdist keeps on one worker")
    if config.getoption("conformance"):
        config.stash[EXAMINATIONS] = _resolved(config)


def _resolved(config: pytest.Config) -> list[Examination]:
    """The models of the SPECs; one line, and exit status 4, where a SPEC names none."""
    from harness.resolve import SpecError, resolve

    specs: list[str] = config.getoption("conformance")
    folder = str(config.invocation_params.dir)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        named = [model for spec in dict.fromkeys(specs) for model in resolve(spec)]
        built = [(model, _built(model.build, model.spec)) for model in named]
    except SpecError as error:
        raise pytest.UsageError(str(error)) from None
    names = [model.name for model in named]
    return [
        Examination(
            model.name if names.count(model.name) == 1 else model.spec,
            thing,
            config.getoption("conformance_seed"),
            effort_named(config.getoption("conformance_effort")),
            FALSE_ALARM_BUDGET / len(named),
            spec=model.spec,
        )
        for model, thing in built
    ]


def _built(build: Callable[[], object], spec: str) -> object:
    from harness.adapters import NotAModel, adapt
    from harness.resolve import SpecError, one_line

    try:
        thing = build()
        adapt(thing, spec)
    except NotAModel as error:
        raise SpecError(str(error)) from None
    except Exception as error:
        raise SpecError(f"{spec}: building it failed: {one_line(error)}") from None
    return thing


class Conformance(pytest.Collector):
    """The models of the command line."""

    def collect(self) -> Iterator[ConformanceModel]:
        for examination in self.config.stash[EXAMINATIONS]:
            yield ConformanceModel.from_parent(self, name=examination.name, examination=examination)


class ConformanceModel(pytest.Collector):
    """One model: a test for each check that is planned."""

    def __init__(self, examination: Examination, **known: Any):
        super().__init__(**known)
        self.examination = examination

    def collect(self) -> Iterator[ConformanceItem]:
        for item in _planned(self.examination):
            check = ModelCheck(item.check.id, self.examination)
            yield ConformanceItem.from_parent(self, name=item.check.id, check=check)


class ConformanceItem(pytest.Item):
    """One check of one model."""

    def __init__(self, check: ModelCheck, **known: Any):
        super().__init__(**known)
        self.check = check
        self.add_marker(pytest.mark.conformance)
        self.add_marker(pytest.mark.xdist_group(check.examination.name))

    def runtest(self) -> None:
        self.check(self.check.examination.thing)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A verdict needs no traceback of ours: the message has the model's own."""
        if isinstance(excinfo.value, AssertionError | ModelError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return "conformance", None, f"{self.check.examination.name}: {self.check.id}"  # heads a failure


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests of `--conformance`, before -k and -m choose among all tests."""
    if EXAMINATIONS in config.stash:
        items += session.genitems(Conformance.from_parent(session, name="conformance", nodeid="conformance"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell each examination which of its checks this session will ask for, and whether INCONCLUSIVE fails."""
    for item in session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        check = item.check if isinstance(item, ConformanceItem) else params.get("check")
        if isinstance(check, ModelCheck):
            check.examination.wanted.add(check.id)
            check.examination.strict = session.config.getoption("conformance_strict")
