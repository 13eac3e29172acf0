"""What a child process does for `harness compare`: say what a data set or a SPEC is, or make one row of the table.

Messages: `data` or `models` for a listing, `refused` for a wrong call; `at` as a sign of life, and a `part` of the row
as soon as it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from typing import Any

import torch

from harness.adapters import adapt
from harness.bench.machine import machine
from harness.checks import CHECKS
from harness.compare import cost
from harness.compare.data import DataError, Dataset, load
from harness.compare.evaluate import test_points
from harness.compare.fitting import Entry, entered
from harness.compare.training import refuse_elsewhere, rows_dtype
from harness.compare.view import View
from harness.effort import Effort, Settings
from harness.evidence import Record, Verdict
from harness.examine import examine_model
from harness.model import Model
from harness.plan import plan
from harness.resolve import SpecError, located, one_line
from harness.store import plain_record
from harness.streams import generator as stream

Send = Callable[..., None]

NORMALISATION = ("density.sums_to_one", "density.integrates_to_one")
"""Checks whose PASS is an exact certificate of normalisation."""

OTHER_LAWS = ("fit", "with_parameters", "affine", "marginal", "conditional", "mutual_information", "kl")
"""Capabilities that are not examined here: they are about other laws than the one that is ranked, and may be out of
reach on the data (a marginal is a sum over all other coordinates)."""

PICTURES = 12
CURVE_TRAINING = 2.0
"""Seconds of training at each point of the curve against D, where quality does not matter."""
CURVE_SIZES = (2, 4, 8, 16, 32, 64)


def compare(request: dict[str, Any], send: Send) -> None:
    """Do what was requested."""
    send(at=["start", 0])
    try:
        if request["do"] == "data":
            send(data=load(request["data"], request["seed"]).facts())
        elif request["do"] == "list":
            send(at=["import", 0])
            send(models=[[named.name, named.spec] for named in located(request["spec"])])
        else:
            _row(request, send)
    except (DataError, SpecError) as error:
        send(refused=str(error))


def _row(request: dict[str, Any], send: Send) -> None:
    seed, name = request["seed"], request["name"]
    data = load(request["data"], request["split"])
    send(at=["import", 0])
    (named,) = located(request["spec"])

    def tell(stage: str, n: int) -> None:
        send(at=[stage, n])

    device, *others = request["devices"]
    how: dict[str, Any] = {"seed": seed, "seconds": request["budget"], "as_it_is": request["as_it_is"]}
    entry = entered(named.thing, data, tell=tell, device=device, **how)
    where = _machine(entry.trained.thing, device)
    send(part={"training": _training(entry), "preprocessing": entry.view.how, "machine": where})
    model = adapt(entry.trained.thing, name, device)
    dtype = rows_dtype(entry.trained.thing)
    tell("test", 0)
    points = test_points(model, entry.view, dtype, seed, lambda n: tell("test", n))
    if points.trouble:
        send(part={"meaning": points.meaning, "trouble": points.trouble})
    else:
        send(part={"meaning": points.meaning, "points": [float(f"{value:.10g}") for value in points.nll.tolist()]})
    send(part={"certificate": _certificate(model, request, send)})
    if not request["costs"]:
        return
    rows = cost.batches(entry.view.test[0], model, dtype, seed)
    send(part={"cost": cost.costs(model, rows, seed=seed, alive=lambda what: tell(f"clock: {what}", 0))})
    if others:
        send(part={"cost_on": {other: _cost_on(other, entry, dtype, request, tell) for other in others}})
    send(part={"pictures": _pictures(model, entry.view, data, seed)})
    in_n = cost.growth_in_n(model, rows, lambda what: tell(f"curve: {what}", 0))
    send(part={"growth": {"n": in_n, "d": _growth_in_d(named.thing, entry, data, request, tell)}})


def _training(entry: Entry) -> dict[str, Any]:
    trained = entry.trained
    return {"how": trained.how, "seconds": trained.seconds, "steps": trained.steps}


def _cost_on(
    device: str, entry: Entry, dtype: torch.dtype, request: dict[str, Any], tell: Callable[[str, int], None]
) -> dict[str, Any]:
    """What the trained model costs on another device; `trouble` says why that cannot be told."""
    seed = request["seed"]
    try:
        refuse_elsewhere(entry.trained.thing, torch.device(device))
        model = adapt(entry.trained.thing, request["name"], device)
        rows = cost.batches(entry.view.test[0], model, dtype, seed)
        return cost.costs(model, rows, seed=seed, alive=lambda what: tell(f"clock: {what} on {device}", 0))
    except Exception as error:  # the model is ranked without these figures
        return {"trouble": one_line(error)}


def _machine(thing: object, device: str) -> dict[str, Any]:
    """Where the row was made, with the version of the library that the model is of."""
    found = machine(device, threads=torch.get_num_threads())
    library = type(thing).__module__.partition(".")[0]
    for distribution in packages_distributions().get(library, []):
        found["versions"] = {**found["versions"], distribution: version(distribution)}
    return found


def _certificate(model: Model, request: dict[str, Any], send: Send) -> dict[str, Any]:
    """The examination, as `harness check` makes it, of the trained model in its own coordinates.

    It is one of the law that is ranked; what the model says of other laws, `harness check` examines, at greater cost.
    """
    model = replace(model, methods={name: method for name, method in model.methods.items() if name not in OTHER_LAWS})
    effort = Effort(**request["effort"])
    settings = Settings(effort, request["seed"], request["budget"], watch=lambda name, stage, n: send(at=[stage, n]))
    records = []
    for record in examine_model(model, plan(model, CHECKS, request["alpha"]), settings):
        send(record=plain_record(record))
        records.append(record)
    counts = {str(v): sum(record.verdict is v for record in records) for v in Verdict}
    passed = not (counts["FAIL"] or counts["ERROR"]) and counts["PASS"] > 0
    exact = [r.check for r in records if r.check in NORMALISATION and r.verdict is Verdict.PASS]
    return {
        "passed": passed,
        "counts": counts,
        "effort": effort.name,
        "seed": request["seed"],
        "alpha": request["alpha"],
        "not_examined": list(OTHER_LAWS),
        "normalised_exactly_by": exact[0] if exact else "",
        "records": [_said(record) for record in records if record.verdict is not Verdict.SKIP],
    }


def _said(record: Record) -> dict[str, Any]:
    whole = plain_record(record)
    return {key: whole[key] for key in ("check", "verdict", "statistic", "bound", "n_samples", "label", "message")}


def _pictures(model: Model, view: View, data: Dataset, seed: int) -> dict[str, Any] | None:
    """Some draws as grey levels 0 to 255, where a row of the data is a picture; and some rows of the data."""
    if data.image is None or not model.can("sample"):
        return None
    x = model.sample(PICTURES, generator=stream(seed, "compare", "pictures", device=model.device))
    x = x.reshape(PICTURES, -1).cpu()
    if x.shape[1] != data.d:
        return None
    low, high = float(data.train.min()), float(data.train.max())

    def grey(rows: torch.Tensor) -> list[list[int]]:
        scaled = (rows.double() - low) / max(high - low, 1e-12) * 255
        return scaled.nan_to_num(0.0).clamp(0, 255).round().int().tolist()

    return {"shape": list(data.image), "draws": grey(view.in_data_units(x)), "rows": grey(data.test[:PICTURES])}


def _growth_in_d(
    thing: Any, entry: Entry, data: Dataset, request: dict[str, Any], tell: Callable[[str, int], None]
) -> list[dict[str, Any]]:
    """The same recipe on the first d coordinates; nothing where it is made for one number of them."""
    points: list[dict[str, Any]] = []
    if entry.trained.as_it_is or request["as_it_is"]:
        return points
    for d in sorted({size for size in (*CURVE_SIZES, data.d) if size <= min(data.d, CURVE_SIZES[-1])}):
        tell(f"curve: {d} coordinates", 0)
        try:
            small = entered(
                thing,
                data.first(d),
                seed=request["seed"],
                seconds=min(CURVE_TRAINING, request["budget"]),
                tell=tell,
                device=request["devices"][0],
            )
            model = adapt(small.trained.thing, device=request["devices"][0])
            rows = cost.batches(small.view.test[0], model, rows_dtype(small.trained.thing), request["seed"])
            points += cost.one_size(model, rows, d)
        except Exception:  # of a fixed size, or not to be fitted so quickly: the curve has no such point
            break
    return points
