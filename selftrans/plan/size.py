"""How large files come out that are not made yet. No torch here: parameters are counted by arithmetic."""

import math
from collections.abc import Mapping
from typing import Any

from selftrans.config.families import Data, Family
from selftrans.config.publications import Publication
from selftrans.plan.runs import Run

FLOAT = 4  # bytes
STORED = {"float32": 4, "float16": 2}  # bytes of a moment
DIGITS = {"train": 1437, "test": 360}  # images


def parameters(backbone: Mapping[str, Any], blocks: int | None = None) -> int:
    """Parameters of `Run.backbone`; with ``blocks``, those of the trunk that ends after that many."""
    width, patch = backbone["width"], backbone["patch_size"] ** 2 * backbone["channels"]
    head, tokens = width // backbone["heads"], (backbone["input_size"] // backbone["patch_size"]) ** 2
    if backbone["backbone"] == "sit":
        hidden, norms, of_head = 4 * width, 0, 2 * head  # layer norms of blocks have no parameters, those of heads two
        mlp = _linear(width, hidden) + _linear(hidden, width)
    else:
        hidden, norms, of_head = 8 * width // 3, width, head
        mlp = _linear(width, 2 * hidden) + _linear(hidden, width)
    block = _linear(width, 3 * width) + _linear(width, width) + mlp + _linear(width, 6 * width) + 2 * norms
    block += 2 * of_head if backbone["qk_norm"] else 0
    labels, positions = (backbone["num_classes"] + 1) * width, tokens * width
    embedders = _linear(patch, width) + _linear(256, width) + _linear(width, width) + labels + positions
    if blocks is not None:
        return embedders + blocks * block
    return embedders + backbone["depth"] * block + _linear(width, patch) + _linear(width, 2 * width) + norms


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def weights_bytes(run: Run) -> int:
    """Weights of one kind at a milestone."""
    return FLOAT * parameters(run.backbone)


def state_bytes(run: Run) -> int:
    """What a run goes on from: weights, their average and two moments of the optimiser; the method's are few."""
    return 4 * weights_bytes(run)


def teacher_bytes(backbone: Mapping[str, Any], layer: int) -> int:
    """A frozen teacher, which ends after ``layer``."""
    return FLOAT * parameters(backbone, layer)


def samples_bytes(run: Run, preset: str) -> int:
    """Samples: their images, as they are."""
    return run.family.presets[preset].samples * 3 * run.family.data.size**2


def latents_bytes(family: Family, images: int) -> int:
    """Packed moments of so many images; other people's stay where they are."""
    if family.latents is not None:
        return 0
    moments = 2 * family.tokenizer.latent_channels * (family.data.size // family.tokenizer.downsampling) ** 2
    return images * (2 if family.flip else 1) * moments * STORED[family.tokenizer.moments]


def images_bytes(data: Data, images: int) -> int:
    """Packed images, at most: compressed ones take less."""
    return images * 3 * data.size**2


def count_images(data: Data, split: str, publications: Mapping[str, Publication]) -> int | None:
    """How many images a split has, about; None of images that nobody published."""
    if data.source == "digits":
        return DIGITS[split]
    published = publications.get(data.label)
    if published is None or published.images_per_class is None:
        return None
    share = data.held_out if split == "test" else 1 - data.held_out
    return round(share * data.classes * published.images_per_class)


def in_words(count: int) -> str:
    """Bytes as people say them, rounded up."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if count >= unit:
            return f"{math.ceil(10 * count / unit) / 10:g} {name}"
    return f"{math.ceil(count / 1e6)} MB"
