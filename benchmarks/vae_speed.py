"""Images that a VAE encodes and decodes in a second, beside the bare network; prints JSON.

    python benchmarks/vae_speed.py                                         # the demo's VAE, digits of 32 px
    python benchmarks/vae_speed.py --scale imagenet --batch-size 1 --rounds 3          # Stable Diffusion's, 256 px
    python benchmarks/vae_speed.py --device cuda --scale imagenet --batch-size 64

Encoding goes from uint8 images to moments, decoding from normalised latents to uint8 images, as `selftrans
extract-latents` and `selftrans sample` do. Sides take turns. Weights are random: what they hold costs nothing.
"""

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import add_options, as_they_are, prepare, rounded, show
from torch import Tensor

from selftrans.config.families import PUBLISHED_VAES, Family, TokenizerRecipe
from selftrans.config.reading.project import load_project
from selftrans.data.latent_stats import LatentStats
from selftrans.models.published_vaes import LAYOUTS
from selftrans.models.tokenizer import Tokenizer, build_vae
from selftrans.training.speed import clock_of, ratio, take_turns

CONFIG = Path(__file__).parent.parent / "config"
TRAINED = ("block_channels", "latent_channels", "layers_per_block", "norm_groups", "middle_attention")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--family", default="sit256", help="whose VAE and size of images (default: sit256)")
    parser.add_argument("--batch-size", type=int, default=64)
    add_options(parser, rounds=10)
    options = parser.parse_args()
    device = prepare(options)
    family = load_project(CONFIG, scale=options.scale).scale.families[options.family]
    sides = sides_of(family, options.batch_size, device)
    seconds = take_turns(as_they_are(sides), options.rounds, 1, clock_of(device))
    medians = {name: options.batch_size / statistics.median(own) for name, own in seconds.items()}
    ratios = {f"{what}: of bare": ratio(seconds[what], seconds[f"{what}, bare"]) for what in ("encode", "decode")}
    size = {"pixels": family.data.size, "architecture": architecture_of(family)}
    show("encoding and decoding", "images/s", options, rounded(medians, 2), rounded(ratios), **size)


def architecture_of(family: Family) -> dict[str, Any]:
    """The arguments of `build_vae`."""
    recipe = family.tokenizer
    if isinstance(recipe, TokenizerRecipe):
        return {key: getattr(recipe, key) for key in TRAINED}
    return LAYOUTS[PUBLISHED_VAES[recipe.published].layout]


def sides_of(family: Family, batch_size: int, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """What is timed."""
    architecture = architecture_of(family)
    tokenizer = Tokenizer(build_vae(**architecture), architecture).to(device)
    channels, side = family.tokenizer.latent_channels, family.data.size // family.tokenizer.downsampling
    images = torch.randint(256, (batch_size, 3, family.data.size, family.data.size), dtype=torch.uint8, device=device)
    latents = torch.randn(batch_size, channels, side, side, device=device)
    stats = LatentStats((0.0,) * channels, (1.0,) * channels)
    pixels = torch.rand(images.shape, device=device)

    @torch.no_grad()
    def bare(network: Callable[[Tensor], Any], x: Tensor) -> Any:
        return network(x)

    return {
        "encode": functools.partial(tokenizer.encode, images),
        "encode, bare": functools.partial(bare, tokenizer.vae.encode, pixels),
        "decode": functools.partial(tokenizer.decode, latents, stats),
        "decode, bare": functools.partial(bare, tokenizer.vae.decode, latents),
    }


if __name__ == "__main__":
    main()
