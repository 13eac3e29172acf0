"""A SPEC's model trained in the view of the data that is its own: states for a discrete model, else a density's."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from harness.adapters import NotAModel, adapt
from harness.compare.data import Dataset
from harness.compare.libraries import is_fitted, only_discrete
from harness.compare.training import Tell, Trained, discrete_events, is_recipe, learnable, needed, trained
from harness.compare.view import View, raw, standardised
from harness.contract import capabilities_of


@dataclass(frozen=True)
class Entry:
    """A trained model and the view in which it is asked."""

    trained: Trained
    view: View


def entered(
    thing: Any,
    data: Dataset,
    *,
    seed: int,
    seconds: float,
    tell: Tell,
    as_it_is: bool = False,
    device: torch.device | str = "cpu",
) -> Entry:
    """Train in the view that fits. Raises what the training raised, and NotAModel for what is no model afterwards.

    Of discrete data it is asked first what the events of the model are; where only a fit can tell, it is fitted to the
    states, and once more to dequantised rows if its draws then turn out to be no states.
    """
    if as_it_is or not _trains(thing):
        plain = trained(thing, raw(data), seed=seed, seconds=seconds, tell=tell, as_it_is=as_it_is, device=device)
        return _in_own_units(plain, data, seed)
    discrete = False if data.levels is None else _is_discrete(thing)
    views = {True: [raw(data)], False: [standardised(data, seed)]}
    trouble: Exception | None = None
    for view in views[discrete] if discrete is not None else [*views[True], *views[False]]:
        try:
            done = trained(thing, view, seed=seed, seconds=seconds, tell=tell, device=device)
            if data.levels is None or discrete is not None or discrete_events(done.thing) in (view.discrete, None):
                adapt(done.thing)
                return Entry(done, view)
        except Exception as error:
            if isinstance(error, TimeoutError) or discrete is not None:
                raise
            trouble = trouble or error
    raise trouble or NotAModel("its events are neither states of the data nor real numbers")


def _in_own_units(plain: Trained, data: Dataset, seed: int) -> Entry:
    """A model that came trained is asked in the data's units; a density of states, at dequantised rows."""
    view = raw(data)
    if data.levels is not None and discrete_events(plain.thing) is False:
        noisy = standardised(data, seed)
        view = View(
            train=noisy.in_data_units(noisy.train),
            valid=noisy.in_data_units(noisy.valid),
            test=noisy.in_data_units(noisy.test),
            log_jacobian=0.0,
            discrete=False,
            exact=False,
            how=noisy.how.partition(", then")[0],
        )
    return Entry(plain, view)


def _trains(thing: Any) -> bool:
    """Would anything be trained?"""
    if is_recipe(thing):
        return True
    known = is_fitted(thing)
    return not known if known is not None else bool(learnable(thing)) or "fit" in capabilities_of(thing)


def _is_discrete(thing: Any) -> bool | None:
    """What can be told before the training; None where nothing can."""
    if is_recipe(thing):
        if isinstance(thing, type) and callable(getattr(thing, "fit", None)):
            return None
        if needed(thing):
            return True if "levels" in inspect.signature(thing).parameters else None
        return _is_discrete(thing())
    said = only_discrete(thing)
    if said is not None:
        return said
    try:
        return discrete_events(thing)
    except Exception:  # not to be asked yet
        return None
