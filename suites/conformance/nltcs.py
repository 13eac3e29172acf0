"""Mixtures of Bernoullis and autoregressive logistic regression on the 16 bits of NLTCS.

`python -m suites.conformance.nltcs` prints both.

The folder of the data is HARNESS_DATA. Numbers are mean test log-likelihoods in nats; each model is normalised by the
sum over all 65,536 states.
"""

import os
from pathlib import Path

import torch
from torch import Tensor

from reference_impls.autoregressive_logistic import AutoregressiveLogistic
from reference_impls.bernoulli_mixture import BernoulliMixture, expectation_maximisation, pool, random_start


def folder() -> Path | None:
    """Where the data lie, None where HARNESS_DATA does not say."""
    return Path(os.environ["HARNESS_DATA"]) / "debd" / "nltcs" if os.environ.get("HARNESS_DATA") else None


def read(split: str) -> Tensor:
    """The rows of train, valid or test, (n, 16)."""
    lines = (folder() / f"nltcs.{split}.data").read_text().split()
    return torch.tensor([[float(bit) for bit in line.split(",")] for line in lines], dtype=torch.float64)


def states() -> Tensor:
    """All 65,536 states."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 16)


def mixture_of_bernoullis(
    train: Tensor, valid: Tensor, *, components: int = 50, parts: int = 6, rounds: int = 6, prior: float = 0.5
) -> BernoulliMixture:
    """An even mixture of `parts` fits, each stopped after the tens of steps that were best on the validation rows."""
    chosen = []
    for seed in range(parts):
        fitted = random_start(train, components, generator=torch.Generator().manual_seed(seed))
        path = []
        for _ in range(rounds):
            fitted = expectation_maximisation(fitted, train, prior=prior, tolerance=0, iterations=10)
            path.append((float(fitted.log_prob(valid).mean()), fitted))
        chosen.append(max(path, key=lambda pair: pair[0])[1])
    return pool(chosen)


def main() -> None:
    train, valid, test = (read(split) for split in ("train", "valid", "test"))
    models = {
        "mixture of Bernoullis": mixture_of_bernoullis(train, valid),
        "autoregressive logistic": AutoregressiveLogistic.fit(train),
    }
    for name, model in models.items():
        mass = model.log_prob(states()).exp().sum() - 1
        print(f"{name}: {model.log_prob(test).mean():.5f} nats, mass 1 {mass:+.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
