"""The pictures that `python -m suites.real_data.pictures` made, for the page of results."""

import base64
from dataclasses import dataclass
from pathlib import Path

COMMAND = "python -m suites.real_data.pictures"
CAPTIONS = {
    "digits-flow": ("Flow", "four layers of MAF on (0, 17)^64, fitted to levels plus uniform noise; rounded down"),
    "digits-vae": ("VAE", "16 latent variables; draws with the noise of the decoder"),
    "digits-diffusion": ("Diffusion", "18 of Heun's steps, guidance 1/2"),
    "digits-gan": ("GAN", "Wasserstein with gradient penalty"),
    "digits-inpainting": ("Inpainting", "test digits with a hole of 4 x 4; two completions by diffusion; the truth"),
    "digits-colorization": (
        "Colorization",
        "luma of test digits; two colourings by diffusion; the truth, in which a colour stands for a label",
    ),
}
"""Title and text for each file, without its .png."""


@dataclass(frozen=True)
class Picture:
    title: str
    caption: str
    address: str


def gallery(folder: Path) -> list[Picture]:
    """Those that are in the folder, with the image itself as address, so that the page stays one file."""
    found = [(folder / f"{name}.png", *told) for name, told in CAPTIONS.items()]
    return [Picture(title, caption, _address(path)) for path, title, caption in found if path.exists()]


def _address(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
