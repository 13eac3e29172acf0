"""Foreign object to model, found by type without configuration. No adapter knows a check.

Third parties register theirs as an entry point of the group `harness.adapters`: a callable
`adapt(thing, name, device, dtype) -> Model | None` that answers None for what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import torch

from harness.adapters import protocol, scipy_stats, sklearn_density, torch_distributions
from harness.contract import CAPABILITIES
from harness.model import Model

Adapter = Callable[[object, str, torch.device, torch.dtype | None], Model | None]

BUILT_IN: tuple[Adapter, ...] = (
    torch_distributions.adapt,
    scipy_stats.adapt,
    sklearn_density.adapt,
    protocol.adapt,
)


class NotAModel(TypeError):
    """The object has no capability of the contract and no adapter knows it."""


def adapt(
    thing: object, name: str = "", device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Model:
    """The model behind `thing`: by the first adapter that knows it, third parties' before the built-in ones.

    Raises NotAModel when nobody does.
    """
    if isinstance(thing, Model):
        return thing
    name = name or type(thing).__name__
    plugged = tuple(entry.load() for entry in entry_points(group="harness.adapters"))
    for adapter in (*plugged, *BUILT_IN):
        model = adapter(thing, name, torch.device(device), dtype)
        if model is not None:
            return model
    raise NotAModel(
        f"{name} ({type(thing).__module__}.{type(thing).__qualname__}) is no model: it has no method "
        f"sample(n, *, generator) or log_prob(x), and no adapter knows its type. Methods of the contract: "
        f"{', '.join(CAPABILITIES)}"
    )
