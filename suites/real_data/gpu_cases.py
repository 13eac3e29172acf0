"""The long runs, for a GPU: `python -m suites.real_data --device cuda`. They are cases like those of `deep_cases`."""

from dataclasses import replace
from functools import partial

from torch import Generator, Tensor, nn

from reference_impls.diagonal_lstm import full_mnist
from reference_impls.made import MADE
from reference_impls.nade import NADE
from reference_impls.transformer import full_characters
from reference_impls.vae import VAE
from reference_impls.vae_parts import BernoulliDecoder, Encoder, mlp
from suites.real_data.cases import PIXELS, SEEN_ELSEWHERE
from suites.real_data.deep_cases import BY_ROUND, IMPORTANCE, DeepCase, bound, on_pixels, on_text, pixels
from suites.real_data.deep_fits import Recipe, Run

LONG = ", long run"
CHOSEN = f"{BY_ROUND}; {SEEN_ELSEWHERE}"
VAE_BY_BOUND = Recipe(20_000, rounds=8, rate=1e-3)
K_OF_LOSS, K = 20, 5000


class Images(nn.Module):
    """A law of rows (n, 784) from one of images (n, 28, 28)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x.reshape(-1, 28, 28))  # (n,)

    def loss(self, x: Tensor, *, generator: Generator) -> Tensor:
        return self.model.loss(x.reshape(-1, 28, 28), generator=generator)  # ()


class ByImportance(VAE):
    """Goes up L_20 in place of L_1 (Burda, Grosse & Salakhutdinov 2016, arxiv.org/abs/1509.00519)."""

    def loss(self, x: Tensor, *, generator: Generator) -> Tensor:
        return -self.iwae(x, K_OF_LOSS, generator=generator).mean()  # ()


def deep_vae() -> ByImportance:
    """Two layers of 500 hidden units on either side, 50 latent variables."""
    encoder = Encoder(mlp((784, 500, 500, 100), seed=9), 50)
    return ByImportance(encoder, BernoulliDecoder(mlp((50, 500, 500, 784), seed=10)), 784)


WITHOUT_PLACE = (
    on_pixels(
        "NADE" + LONG,
        "M18",
        "500 hidden units",
        lambda: NADE(784, 500, seed=21),
        CHOSEN,
        Recipe(6000, rounds=8, rate=2e-3),
    ),
    on_pixels(
        "MADE" + LONG,
        "M18",
        "8,000 hidden units",
        lambda: MADE(784, (8000,), seed=17),
        CHOSEN,
        Recipe(2000, rounds=20, rate=5e-4),
    ),
    DeepCase(
        "binarized_mnist",
        "VAE" + LONG,
        "M22",
        partial(bound, pixels, deep_vae, VAE_BY_BOUND, "mnist-VAE-long", K),
        f"{PIXELS}; 2 x 500 hidden units, 50 latent variables; loss -L_{K_OF_LOSS}; float32, {VAE_BY_BOUND}",
        CHOSEN,
        IMPORTANCE.format(K),
        seed=0,
    ),
    on_pixels(
        "Diagonal BiLSTM" + LONG,
        "M21",
        "seven layers of 16 features",
        lambda: Images(full_mnist()),
        CHOSEN,
        Recipe(10_000, rounds=4, rate=1e-3, clip=1.0),
    ),
    on_text(
        "transformer" + LONG,
        "six blocks of six heads of 64 units, 256 characters in a row, one unit in five dropped",
        full_characters,
        Recipe(5000, batch=64, rate=1e-3, clip=1.0),
        "nothing; sizes and rate are those of nanoGPT",
    ),
)
ON_GPU = tuple(replace(case, run=Run("cuda")) for case in WITHOUT_PLACE)
