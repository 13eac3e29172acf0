r"""What a variational autoencoder is made of: its prior, its encoder and two decoders, each a law of rows.

    z ~ N(0, I),   q(z | x) = N(m(x), diag s(x)^2),   p(x | z) = prod_i Bernoulli(x_i; sigmoid(l_i(z)))  or  N(m(z), S)

A law given something has log_prob(x, *, given) and sample(n, *, given, generator), a row for each row of `given`. Where
there are labels, the latent variable is z followed by the one-hot code of a label, which is uniform.

Sources: Kingma & Welling (2014), arxiv.org/abs/1312.6114, appendix C; Kingma et al. (2014), arxiv.org/abs/1406.5298.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid, one_hot

from reference_impls.expectation_gradients import log_normal, reparameterised


def mlp(sizes: Sequence[int], seed: int, gain: float = 1.0, bias: float = 0.0) -> nn.Sequential:
    """Fully connected layers of these sizes with tanh between; weights N(0, gain^2 / inputs), biases N(0, bias^2)."""
    source = Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(gain / math.sqrt(inputs) * torch.randn(outputs, inputs, generator=source))
            layer.bias.copy_(bias * torch.randn(outputs, generator=source))
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Prior(nn.Module):
    """z ~ N(0, I) on R^q, followed by the one-hot code of a uniform label where there are classes: (n, q + classes)."""

    def __init__(self, latent: int, classes: int = 0):
        super().__init__()
        self.latent, self.classes = latent, classes
        self.register_buffer("origin", torch.zeros(latent))

    def log_prob(self, z: Tensor) -> Tensor:
        z, code = z.split([self.latent, self.classes], -1)
        return log_normal(z, self.origin, self.origin) + log_uniform(code)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        z = torch.randn(n, self.latent, generator=generator, dtype=self.origin.dtype, device=self.origin.device)
        return torch.cat([z, random_codes(n, self.classes, z, generator)], -1)  # (n, q + classes)


class Encoder(nn.Module):
    """q(z | x) = N(m, diag s^2), with m and log s from a network of x and the code of y; y is uniform."""

    def __init__(self, network: nn.Module, latent: int, classes: int = 0):
        super().__init__()
        self.network, self.latent, self.classes = network, latent, classes

    def moments(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s, each (n, q)."""
        return self.network(torch.cat([x, code], -1)).chunk(2, -1)

    def log_prob(self, z: Tensor, *, given: Tensor) -> Tensor:
        z, code = z.split([self.latent, self.classes], -1)
        return log_normal(z, *self.moments(given, code)) + log_uniform(code)  # (n,)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        code = random_codes(n, self.classes, given, generator)
        with torch.no_grad():
            z = reparameterised(*self.moments(given, code), generator=generator)
        return torch.cat([z, code], -1)  # (n, q + classes)


class BernoulliDecoder(nn.Module):
    """p(x | z): independent pixels in {0, 1}, with the network's outputs as their log-odds; -inf for other events.

    sum x log p + (1 - x) log(1 - p) is a log-probability of bits only: on [0, 1] it would lack its normaliser.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        return self.log_density(x, self.network(given))  # (n,)

    def log_density(self, x: Tensor, odds: Tensor) -> Tensor:
        """log p(x_i) = log sigmoid(+- odds_i), summed; of shapes that broadcast."""
        possible = ((x == 0) | (x == 1)).all(-1)
        return torch.where(possible, logsigmoid((2 * x - 1) * odds).sum(-1), -torch.inf)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        with torch.no_grad():
            chance = self.network(given).sigmoid()
        u = torch.rand(chance.shape, generator=generator, dtype=chance.dtype, device=chance.device)
        return (u < chance).to(chance.dtype)  # (n, d)


class GaussianDecoder(nn.Module):
    """p(x | z) = N(network(z), diag s^2), with the same s for every z."""

    def __init__(self, network: nn.Module, log_std: Tensor):
        super().__init__()
        self.network, self.log_std = network, nn.Parameter(log_std)  # (d,)

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        return self.log_density(x, self.network(given))  # (n,)

    def log_density(self, x: Tensor, mean: Tensor) -> Tensor:
        return log_normal(x, mean, self.log_std)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        with torch.no_grad():
            mean = self.network(given)
            return reparameterised(mean, self.log_std.expand_as(mean), generator=generator)  # (n, d)


def log_uniform(code: Tensor) -> Tensor:
    """The log-probability of one-hot codes (n, classes) of a uniform label: -log classes, or 0 without classes."""
    classes = code.shape[-1]
    if classes == 0:
        return code.new_zeros(code.shape[:-1])
    possible = ((code == 0) | (code == 1)).all(-1) & (code.sum(-1) == 1)
    return torch.where(possible, -math.log(classes), -torch.inf).to(code.dtype)  # (n,)


def random_codes(n: int, classes: int, like: Tensor, generator: Generator) -> Tensor:
    if classes == 0:
        return like.new_zeros(n, 0)
    labels = torch.randint(classes, (n,), generator=generator, device=like.device)
    return one_hot(labels, classes).to(like.dtype)  # (n, classes)
