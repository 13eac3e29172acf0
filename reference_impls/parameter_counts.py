"""How many free parameters the discrete families have: what an assumption of independence saves.

n binary pixels: joint table 2^n - 1, Markov chain 2n - 1, independent n;     one RGB pixel: 256^3 - 1 = 16,777,215
"""

import math
from collections.abc import Sequence


def joint_parameters(states: Sequence[int]) -> int:
    """prod_i K_i - 1: 2^n - 1 for n binary pixels, 256^3 - 1 = 16,777,215 for one RGB pixel."""
    return math.prod(states) - 1


def independent_parameters(states: Sequence[int]) -> int:
    """sum_i (K_i - 1): n for n binary pixels."""
    return sum(states) - len(states)


def chain_rule_parameters(states: Sequence[int]) -> int:
    """sum_k (K_k - 1) prod_{j<k} K_j, which telescopes to prod_i K_i - 1 in any order."""
    return sum((k - 1) * math.prod(states[:i]) for i, k in enumerate(states))


def autoregressive_softmax_shapes(pixels: int, levels: int = 256) -> list[tuple[int, int]]:
    """Each pixel a softmax regression on the pixels before it: weights (levels, i - 1) and a column of biases, i >= 1.

    That is levels * D (D + 1) / 2 numbers, 78,776,320 for D = 784 pixels; one logit in each softmax is superfluous.
    """
    return [(levels, i) for i in range(1, pixels + 1)]


def autoregressive_softmax_parameters(pixels: int, levels: int = 256) -> int:
    """levels * D (D + 1) / 2."""
    return levels * pixels * (pixels + 1) // 2


def markov_chain_parameters(length: int, states: int = 2, *, homogeneous: bool = False) -> int:
    """(K - 1) + (T - 1) K (K - 1), which is 2T - 1 for bits; with one transition for all steps, (K - 1) + K (K - 1)."""
    transitions = min(1, length - 1) if homogeneous else length - 1
    return (states - 1) + transitions * states * (states - 1)


def bayesian_network_parameters(parents: Sequence[Sequence[int]], states: Sequence[int]) -> int:
    """sum_i (K_i - 1) prod_{j in pa(i)} K_j."""
    return sum((k - 1) * math.prod(states[j] for j in pa) for pa, k in zip(parents, states, strict=True))
