r"""Variational autoencoders: a latent variable z behind each event x, and a network that guesses it from x.

    z ~ p(z) = N(0, I),   x ~ p(x | z): the decoder,   q(z | x) = N(m(x), diag s(x)^2): the encoder

log p(x) = log int p(z) p(x | z) dz is out of reach, but with w = p(z) p(x | z) / q(z | x) and z_1, ..., z_k from q,

    ELBO = E_q[log w] = log p(x) - KL(q || p(z | x))  =  L_1 <= L_k = E log 1/k sum_i w_i <= L_{k+1} <= log p(x),

as E_q[w] = p(x) and log is concave. Of E_q[log w] = E_q[log p(x | z)] - KL(q || p(z)) the second part has a closed
form; it may be used or drawn. beta weighs it in the loss, and the loss alone: with beta < 1 that is no bound any more.

A label y, where there is one, is a latent variable that is told: it stands behind z as a one-hot code, uniform before
anything was seen, and uniform under q as well where it was not told.

Sources: Kingma & Welling (2014), arxiv.org/abs/1312.6114; Rezende, Mohamed & Wierstra (2014), arxiv.org/abs/1401.4082;
Higgins et al. (2017), openreview.net/forum?id=Sy2fzU9gl (beta); Burda, Grosse & Salakhutdinov (2016),
arxiv.org/abs/1509.00519 (L_k); Kingma et al. (2014), arxiv.org/abs/1406.5298 (labels).
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from reference_impls.expectation_gradients import (
    LOG_2PI,
    kl_to_standard_normal,
    log_normal,
    reparameterised,
    score_function,
)
from reference_impls.training import Player, train
from reference_impls.vae_parts import BernoulliDecoder, Encoder, GaussianDecoder, Prior, mlp, random_codes

ROWS = 2**13
"""Pairs (x, z) at a time where no graph is kept: a bound of many draws takes no more memory than that."""


class VAE(nn.Module):
    """Prior, decoder and encoder. Events are rows (n, d).

    `analytic` takes the closed form of KL(q || p(z)) for the bound, else it is drawn. `estimator` says whose gradient
    the bound has: that of "reparameterisation", or of the "score function".
    """

    number, family = "M22", "variational autoencoder"

    def __init__(
        self,
        encoder: Encoder,
        decoder: BernoulliDecoder | GaussianDecoder,
        d: int,
        *,
        beta: float = 1.0,
        analytic: bool = True,
        estimator: str = "reparameterisation",
    ):
        super().__init__()
        if estimator not in ("reparameterisation", "score function"):
            raise ValueError(f"estimator = {estimator!r} should be 'reparameterisation' or 'score function'")
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta = {beta} weighs the KL: it should be 0 or above, and 1 for the bound itself")
        self.encoder, self.decoder = encoder, decoder
        self.first = Prior(encoder.latent, encoder.classes).to(next(encoder.parameters()))
        self.d, self.beta, self.analytic, self.estimator = d, beta, analytic, estimator

    def prior(self) -> Prior:
        return self.first

    def likelihood(self) -> BernoulliDecoder | GaussianDecoder:
        """p(x | z)."""
        return self.decoder

    def posterior(self) -> Encoder:
        """q(z | x), an approximation."""
        return self.encoder

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        z = self.first.sample(n, generator=generator)
        return self.decoder.sample(n, given=z, generator=generator)  # (n, d)

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        """One draw of z for each row: E elbo(x) = E_q[log p(x, z) - log q(z | x)] <= log p(x)."""
        return self._elbo(x, None, 1.0, generator)  # (n,)

    def iwae(self, x: Tensor, k: int, *, generator: Generator) -> Tensor:
        """log 1/k sum_i w_i. Its mean rises with k to log p(x); see the top of the file."""
        return self._iwae(x, None, k, generator)  # (n,)

    def loss(self, x: Tensor, *, generator: Generator) -> Tensor:
        """-E_q[log p(x | z)] + beta KL(q || p(z)), a mean over rows."""
        return -self._elbo(x, None, self.beta, generator).mean()  # ()

    def _elbo(self, x: Tensor, code: Tensor | None, beta: float, generator: Generator) -> Tensor:
        x = self._checked(x)
        if code is None:
            code = random_codes(len(x), self.encoder.classes, x, generator)
        moments = self.encoder.moments(x, code)
        z = reparameterised(*moments, generator=generator)
        if self.estimator == "score function":
            z = z.detach()
        log_q = log_normal(z, *moments)
        value = self.decoder.log_prob(x, given=torch.cat([z, code], -1))
        if not self.analytic:
            value = value + beta * (log_normal(z, self.first.origin, self.first.origin) - log_q)
        if self.estimator == "score function":
            value = score_function(value, log_q)
        return value - beta * kl_to_standard_normal(*moments) if self.analytic else value  # (n,)

    def _iwae(self, x: Tensor, code: Tensor | None, k: int, generator: Generator) -> Tensor:
        parts = []
        for rows in self._checked(x).split(ROWS):
            known = None if code is None else code[len(parts) * ROWS :][: len(rows)]
            parts.append(importance_bound(self._log_weights(rows, known, generator), len(rows), k))
        return torch.cat(parts) if parts else x.new_zeros(0)

    def _log_weights(self, x: Tensor, code: Tensor | None, generator: Generator) -> Callable[[int], Tensor]:
        """c -> log w of c draws of z for each row, (n, c). Where the code is known, x is encoded once."""
        classes = self.encoder.classes
        known = x.new_zeros(len(x), 0) if classes == 0 else code
        moments = None if known is None else self.encoder.moments(x, known)

        def log_weights(count: int) -> Tensor:
            pairs = x.repeat_interleave(count, 0)  # (n c, d)
            if moments is None:
                codes = random_codes(len(pairs), classes, x, generator)
                law = self.encoder.moments(pairs, codes)
            else:
                codes, *law = (t.repeat_interleave(count, 0) for t in (known, *moments))
            z = reparameterised(*law, generator=generator)
            log_w = log_normal(z, self.first.origin, self.first.origin) - log_normal(z, *law)
            return (log_w + self.decoder.log_prob(pairs, given=torch.cat([z, codes], -1))).reshape(len(x), count)

        return log_weights

    def _checked(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"x should be events of shape (n, {self.d}), not {tuple(x.shape)}")
        return x.to(self.first.origin.dtype)


class ConditionalVAE(VAE):
    """p(x | y) for labels y = 0, ..., classes - 1; without `given`, x has the law of the mixture over uniform y."""

    family = "conditional variational autoencoder"

    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        z = self.first.sample(n, generator=generator)
        if given is not None:
            z = torch.cat([z[:, : self.first.latent], self._code(given, n)], -1)
        return self.decoder.sample(n, given=z, generator=generator)  # (n, d)

    def elbo(self, x: Tensor, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        return self._elbo(x, None if given is None else self._code(given, len(x)), 1.0, generator)  # (n,)

    def iwae(self, x: Tensor, k: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        return self._iwae(x, None if given is None else self._code(given, len(x)), k, generator)  # (n,)

    def loss(self, x: Tensor, y: Tensor, *, generator: Generator) -> Tensor:
        return -self._elbo(x, self._code(y, len(x)), self.beta, generator).mean()  # ()

    def _code(self, y: Tensor, n: int) -> Tensor:
        classes = self.encoder.classes
        if y.shape != (n,) or y.is_floating_point():
            raise ValueError(f"y should be {n} integers, a label for each event, not {y.dtype} of {tuple(y.shape)}")
        if n and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise ValueError(f"y has labels outside of 0 to {classes - 1}")
        return one_hot(y, classes).to(self.first.origin)  # (n, classes)


class QuadratureVAE(VAE):
    """With one latent variable, log p(x) is an integral over a line, which the trapezoidal rule does.

    Of an analytic integrand its error falls exponentially in 1 / step, once steps are a part of the width of p(z | x)
    and of 1 / |w| for the decoder's weights w.
    """

    STEP, REACH, CELLS = 1 / 10, 9.0, 2**20

    def log_prob(self, x: Tensor) -> Tensor:
        if self.first.latent + self.first.classes != 1:
            raise ValueError("log p(x) is found by quadrature over one latent variable and no label; use iwae instead")
        x = self._checked(x)
        points = round(2 * self.REACH / self.STEP) + 1
        z = torch.linspace(-self.REACH, self.REACH, points, dtype=x.dtype, device=x.device)[:, None]  # (points, 1)
        outputs = self.decoder.network(z)  # (points, d)
        log_weight = -z.square().sum(-1) / 2 - LOG_2PI / 2 + math.log(self.STEP)  # (points,)
        rows = max(1, self.CELLS // (points * self.d))
        parts = [
            (self.decoder.log_density(part[:, None], outputs) + log_weight).logsumexp(-1) for part in x.split(rows)
        ]
        return torch.cat(parts) if parts else x.new_zeros(0)  # (n,)


def importance_bound(log_weights: Callable[[int], Tensor], n: int, k: int) -> Tensor:
    """log 1/k sum_i w_i (n,), from c -> c log-weights a row, a part of the k at a time."""
    if k < 1:
        raise ValueError(f"k = {k}: the bound is a mean of one or more weights")
    total, left = None, k
    while left:
        count = min(left, max(1, ROWS // max(1, n)))
        part = log_weights(count).logsumexp(-1)
        total = part if total is None else torch.logaddexp(total, part)
        left -= count
    return total - math.log(k)  # (n,)


# Ready-made models


def six_pixels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> QuadratureVAE:
    """Six pixels and one latent variable that turns some on and others off; the encoder alone was trained."""
    model = QuadratureVAE(
        Encoder(mlp((6, 16, 2), seed=1), 1), BernoulliDecoder(mlp((1, 12, 6), seed=2, gain=1.6, bias=0.5)), 6
    )
    return _placed(_with_trained_encoder(model, steps=150), dtype, device)


def bent_line(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> QuadratureVAE:
    """A bent line in the plane, with noise; the KL of its bound is drawn."""
    decoder = GaussianDecoder(mlp((1, 12, 2), seed=3, gain=1.3, bias=0.5), torch.tensor([-1.0, -0.7]))
    model = QuadratureVAE(Encoder(mlp((2, 16, 2), seed=4), 1), decoder, 2, analytic=False)
    return _placed(_with_trained_encoder(model, steps=150), dtype, device)


def nine_pixels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> VAE:
    """3 x 3 pixels and two latent variables, as they were before any training; its density is not known."""
    return _placed(
        VAE(Encoder(mlp((9, 8, 4), seed=5), 2), BernoulliDecoder(mlp((2, 12, 9), seed=6, gain=1.6, bias=0.5)), 9),
        dtype,
        device,
    )


def labelled_pixels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConditionalVAE:
    """Six pixels, one latent variable, and three labels, as they were before any training."""
    encoder = Encoder(mlp((6 + 3, 12, 2), seed=7), 1, classes=3)
    return _placed(
        ConditionalVAE(encoder, BernoulliDecoder(mlp((1 + 3, 12, 6), seed=8, gain=1.6, bias=0.5)), 6), dtype, device
    )


def full_mnist(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> VAE:
    """784 pixels, 500 hidden units on either side, 50 latent variables; untrained."""
    encoder = Encoder(mlp((784, 500, 2 * 50), seed=9), 50)
    return _placed(VAE(encoder, BernoulliDecoder(mlp((50, 500, 784), seed=10)), 784), dtype, device)


def _with_trained_encoder(model: VAE, steps: int) -> VAE:
    """The decoder is the truth: q learns to be near its posterior."""
    x = model.sample(4096, generator=Generator().manual_seed(0))
    train(model, [Player(list(model.encoder.parameters()), model.loss, rate=1e-2)], x, steps=steps, batch=128)
    return model


def _placed(model: nn.Module, dtype: torch.dtype | None, device: torch.device | str | None):
    return model.to(device=device or torch.get_default_device(), dtype=dtype or torch.get_default_dtype()).eval()
