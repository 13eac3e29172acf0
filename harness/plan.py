"""Which checks apply to a model, and which share of the false-alarm budget each one gets. Pure, before any draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.checks.law import Check, StatisticalCheck
from harness.model import Model

GATES = {"sample": "sample.well_formed", "log_prob": "log_prob.well_formed"}
"""The check that must pass before a capability is relied on."""

IN_COMMON, HAS_VOLUME = "support.in_common", "support.has_volume"
"""Without either, no comparison of a density with anything can be made; a SKIP of the second for a measure of its own
blocks as a FAIL does."""

COMPARED = ("density.", "moments.", "information.", "sampler.", "support.")
"""Beginnings of the ids of such comparisons."""

FREE_OF_MASS = (
    "support.every_value_drawn",
    "sampler.region_masses",
    "sampler.pit_uniform",
    "sampler.exchangeable",
    "sampler.stein",
    "autoregressive.rosenblatt",
)
"""Checks that the sampler draws from the density, whatever `density.bridge_mass` says; the plainest first."""

BRIDGES = ("sampler.bridge", "sampler.bridge_pairs", "sampler.adversary")
"""Checks of the same claim that a wrong normalising constant breaks as well."""

GIVEN = (
    "given.region_masses",
    "given.stein",
    "given.exchangeable",
    "given.bridge_mass",
    "given.bridge",
    "given.adversary",
)
"""Checks that the draws given something follow the density given that."""

OF_DRAWS = (
    "moments.mean_of_draws",
    "moments.variance_of_draws",
    "moments.covariance_of_draws",
    "moments.clipped_variance_of_draws",
    "information.entropy_of_draws",
    "information.kl_of_draws",
    "structure.marginal_of_draws",
    "structure.conditional_of_draws",
    "mutual.of_draws",
    "energy.log_partition_of_draws",
    "bijection.draws_are_pushed_forward",
)
"""Checks of what the model states by means over draws, which must be draws from the density for that."""

MAPS = (
    "bijection.inverse_undoes_forward",
    "bijection.log_det_is_jacobian",
    "bijection.change_of_variables",
    "autoregressive.sums_to_log_prob",
    "autoregressive.each_normalised",
    "autoregressive.causal_by_perturbation",
)
"""Checks of what a density is made of, a flow's of maps and an autoregressive one of factors, which say more of a
defect than the density that it spoils."""

STEIN = ("energy.stein", "energy.exchangeable", "score.stein", "score.kernel_stein", "energy.kernel_stein")
"""Checks that draws follow an energy or a score, of which no normalised density need be known."""

CALIBRATED = "classifier.calibrated"
"""Which draws given another label than they should be do not pass either."""

IMPLICIT = (
    "implicit.modes_covered",
    "implicit.agrees_with_data",
    "implicit.not_memorised",
    "implicit.not_repeated",
    "implicit.adversary",
    "implicit.agrees_given",
)
"""Checks that draws follow the data. A draw is near to everything where draws keep to the centre, so that those of
memory come after plain disagreement; of few rows that are copied, they speak before it."""

TURNS = (*FREE_OF_MASS, "density.bridge_mass", *BRIDGES, *STEIN, *GIVEN, CALIBRATED, *OF_DRAWS, *IMPLICIT)
"""The order in which these are judged after equally many draws; every other check is judged before them."""


@dataclass(frozen=True)
class Planned:
    """One check on one model: its share `alpha` of the budget, what blocks it, or why it is skipped.

    `yields_to` are checks of the same claim: once one of them has failed, this one would report the same defect again.
    They are not looked for when the check is made alone. `turn` orders the judging of checks at the same look.
    """

    check: Check
    alpha: float
    blocked_by: tuple[str, ...]
    skip: str = ""
    yields_to: tuple[str, ...] = ()
    turn: int = -1


def plan(model: Model, checks: Sequence[Check], alpha: float) -> tuple[Planned, ...]:
    """Every check in order; `alpha` is shared equally among the statistical ones that apply.

    The shares sum to `alpha`, so by the union bound the probability that a correct model gets any FAIL is at most it.
    """
    missing = {check.id: [need for need in check.needs if not model.can(need)] for check in checks}
    statistical = [check for check in checks if isinstance(check, StatisticalCheck) and not missing[check.id]]
    share = alpha / max(1, len(statistical))
    return tuple(
        Planned(
            check,
            share,
            _blockers(check),
            _missing(model, missing[check.id]) if missing[check.id] else "",
            (*_made_of(check), *_yields_to(check.id)),
            TURNS.index(check.id) if check.id in TURNS else -1,
        )
        for check in checks
    )


def _missing(model: Model, names: Sequence[str]) -> str:
    """Which capabilities are not there, and why not where a method of that name did not fit."""
    reasons = "; ".join(model.unfit[name] for name in names if name in model.unfit)
    return f"the model has no {' and no '.join(names)}" + (f": {reasons}" if reasons else "")


def _blockers(check: Check) -> tuple[str, ...]:
    gates = [GATES[need] for need in check.needs if need in GATES]
    if check.id.startswith(COMPARED) and {"log_prob", "cdf", "icdf"} & set(check.needs):
        gates += [] if check.id in (IN_COMMON, HAS_VOLUME, "support.impossible_outside") else [IN_COMMON, HAS_VOLUME]
    return tuple(dict.fromkeys(gate for gate in (*gates, *check.blocked_by) if gate != check.id))


def _made_of(check: Check) -> tuple[str, ...]:
    """Checks of the parts of a density that this one, a comparison of it with something, yields to."""
    return MAPS if check.id.startswith(COMPARED) and "log_prob" in check.needs else ()


def _yields_to(id: str) -> tuple[str, ...]:
    """Checks of which a FAIL says already what a FAIL of this one would.

    A bridge is no proof against the sampler where the mass is wrong, so `density.bridge_mass` does not yield to one.
    What is stated of draws yields to the gates as well, which draws of quite another law do not pass.
    """
    if id == "sample.resolution":  # draws that are all among a few look like coarse ones
        return ("implicit.not_memorised", "implicit.not_repeated")
    if id not in TURNS:
        return ()
    witnesses: tuple[str, ...] = FREE_OF_MASS if id == "density.bridge_mass" else FREE_OF_MASS + BRIDGES
    if id in OF_DRAWS:
        witnesses = (IN_COMMON, HAS_VOLUME, *witnesses)
    if id in GIVEN:
        witnesses = (*witnesses, *GIVEN)
    if id in STEIN:
        witnesses = (*witnesses, *STEIN)
    if id == CALIBRATED:
        witnesses = GIVEN
    if id in IMPLICIT:
        witnesses = (*witnesses, *GIVEN, *IMPLICIT)
    return tuple(other for other in witnesses if other != id)


def select(checks: Sequence[Check], only: Iterable[str]) -> tuple[Check, ...]:
    """The checks whose id is named, or begins with a name followed by a dot; all when nothing is named.

    Gates are kept, since nothing can be said of a model that they stop. Raises KeyError for a name that matches none.
    """
    names = tuple(only)
    if not names:
        return tuple(checks)
    for name in names:
        if not any(_named(check.id, name) for check in checks):
            raise KeyError(f"no check is called {name!r}; `harness checks` lists them")
    wanted = {check.id for check in checks if any(_named(check.id, name) for name in names)}
    by_id = {check.id: check for check in checks}
    grown: set[str] = set()
    while wanted != grown:
        grown = set(wanted)
        wanted |= {blocker for id in grown for blocker in _blockers(by_id[id]) if blocker in by_id}
    return tuple(check for check in checks if check.id in wanted)


def _named(id: str, name: str) -> bool:
    return id == name or id.startswith(name.rstrip(".*") + ".")
