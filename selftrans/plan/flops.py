"""What training computes: the multiplications of its matrix products, by what they are for.

A product of an (m, k) and a (k, n) matrix is m k n multiplications, each with an addition: 2 m k n FLOP. Counted are
linear layers, convolutions and both products of attention; a layer that is trained costs its forward pass three times
over, since backward there is one product for its input and one for its weights. That is what the arithmetic asks for,
whatever a device makes of it: what is computed again to save memory (checkpointed activations, the backward pass of
fused attention) does not count.

Left out is what goes element by element: norms, activations, softmax, losses and their distances, the optimiser, the
moving average; and what a run does not do itself: encoding images into latents, training VAE or encoder, sampling.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any

from selftrans.config.families import TOKEN_PIXELS, PublishedEncoder
from selftrans.errors import UserError
from selftrans.plan.runs import Run

FLOP = 2  # of a multiplication and its addition
PETA = 1e15

TRAINED = 3  # passes' worth of a forward and a backward pass

FREQUENCIES = 256  # numbers that stand for a time before it is embedded


@dataclass(frozen=True)
class Cost:
    """Multiplications by what they are for."""

    student: int = 0  # the model that is trained, forward and backward
    projector: int = 0  # of the method, forward and backward
    target: int = 0  # what the student is aligned with, forward: guiding model, encoder, its own average
    stage1: int = 0  # the training of the guiding model, with all that this one cost

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(mine + others for mine, others in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> "Cost":
        return Cost(*(times * part for part in astuple(self)))

    @property
    def total(self) -> int:
        """Of all parts."""
        return sum(astuple(self))


def petaflop(multiplications: float) -> float:
    """The same in units of 10^15 FLOP."""
    return FLOP * multiplications / PETA


def spent(run: Run, steps: int) -> Cost:
    """All that is paid for the weights after ``steps`` steps: these, and the guiding model's training before them.

    A guiding model is counted whole for each of its students, however many share it. Raises UserError as `step_cost`.
    """
    stop = run.recipe["stop"]
    with_method = steps if stop is None else min(steps, stop)
    paid = step_cost(run, 0) * with_method
    if with_method < steps:
        paid += step_cost(run, stop) * (steps - with_method)
    if run.teacher is not None:
        paid += Cost(stage1=spent(run.teacher.run, run.teacher.step).total)
    return paid


def step_cost(run: Run, step: int) -> Cost:
    """What a run's step after ``step`` steps costs, over its whole batch. Raises UserError for an unknown method."""
    forward = trunk(run, run.model.depth) + _head(run)
    cost = Cost(student=TRAINED * forward - _inputs(run))
    if run.has_method_after(step):
        name = run.row.method["name"]
        if name not in METHODS:
            raise UserError(f"{__name__}: METHODS: nobody says what a step of method {name!r} costs; add it there")
        projector, target = METHODS[name](run, run.row.method)
        cost += Cost(projector=TRAINED * projector, target=target)
    return cost * run.family.batch_size


# --------------------------------------------------------------------------- of one image, forward


def trunk(run: Run, blocks: int) -> int:
    """The run's backbone up to the features after so many blocks."""
    tokens, width = run.tokens, run.model.width
    mlp = chain(width, 4 * width, width) if run.model.backbone == "sit" else 3 * width * (8 * width // 3)
    block = _attention(tokens, width) + tokens * mlp + 6 * width**2  # and its modulation, once for all tokens
    return _inputs(run) + width**2 + blocks * block


def chain(*widths: int) -> int:
    """Linear layers after one another, for one token."""
    return sum(into * out for into, out in pairwise(widths))


def _attention(tokens: int, width: int) -> int:
    return tokens * 4 * width**2 + 2 * tokens**2 * width


def _inputs(run: Run) -> int:
    """The layers that see what nothing learns from, so that backward there is no product for their input."""
    return run.model.width * (run.tokens * _patch(run) + FREQUENCIES)


def _head(run: Run) -> int:
    """From the last block to the velocity."""
    return run.model.width * (2 * run.model.width + run.tokens * _patch(run))


def _patch(run: Run) -> int:
    """Numbers of a latent that a token stands for."""
    return run.model.patch_size**2 * run.family.tokenizer.latent_channels


@dataclass(frozen=True)
class Encoder:
    """The sizes of a vision transformer."""

    depth: int
    width: int
    patch: int  # pixels to its side
    tokens: int  # of the image
    others: int  # class token and registers

    @property
    def forward(self) -> int:
        """One image through it, up to its tokens."""
        tokens = self.tokens + self.others
        block = _attention(tokens, self.width) + tokens * chain(self.width, 4 * self.width, self.width)
        return self.tokens * 3 * self.patch**2 * self.width + self.depth * block

    @property
    def logits(self) -> int:
        """A block's attention logits, for which its queries and keys (and values) are computed once more."""
        tokens = self.tokens + self.others
        return tokens * 3 * self.width**2 + tokens**2 * self.width


ENCODERS = {"s": (12, 384), "b": (12, 768), "l": (24, 1024), "h": (32, 1280), "g": (40, 1536)}  # depth, width
OF_14_PIXELS = ("dinov2-", "ijepa-", "clip-l")


def encoder_of(run: Run) -> Encoder:
    """The encoder of a run's family."""
    size, recipe = run.family.data.size, run.family.encoder
    if not isinstance(recipe, PublishedEncoder):
        return Encoder(depth=2, width=64, patch=8, tokens=(size // 8) ** 2, others=0)  # `build_vit`
    family, letter, *registers = recipe.published.split("-")
    depth, width = ENCODERS[letter]
    return Encoder(
        depth=depth,
        width=width,
        patch=14 if recipe.published.startswith(OF_14_PIXELS) else 16,
        tokens=(size // TOKEN_PIXELS) ** 2,
        others=0 if family == "ijepa" else 5 if registers else 1,
    )


# ------------------------------------------- methods, of one image: (the projector forward, what makes the target)

Settings = dict[str, Any]


def _vae_align(run: Run, settings: Settings) -> tuple[int, int]:
    width, hidden, patch = run.model.width, run.model.projector_width, _patch(run)
    widths = (width, patch) if settings["head"] == "normed" else (patch,)
    return run.tokens * chain(width, hidden, hidden, *widths), 0


def _vae_repa(run: Run, settings: Settings) -> tuple[int, int]:
    width = run.model.width
    return run.tokens * chain(*(width // share for share in (1, 2, 4, 8, 8)), _patch(run)), 0


def _repa(run: Run, settings: Settings) -> tuple[int, int]:
    encoder, hidden = encoder_of(run), run.model.projector_width
    return run.tokens * chain(run.model.width, hidden, hidden, encoder.width), encoder.forward


def _irepa(run: Run, settings: Settings) -> tuple[int, int]:
    encoder = encoder_of(run)
    return run.tokens * settings["kernel_size"] ** 2 * run.model.width * encoder.width, encoder.forward


def _haste(run: Run, settings: Settings) -> tuple[int, int]:
    projector, target = _repa(run, settings)
    return projector, target + len({block for _, block in settings["attention_pairs"]}) * encoder_of(run).logits


def _sra(run: Run, settings: Settings) -> tuple[int, int]:
    width = run.model.width
    return run.tokens * chain(width, 2 * width, width), trunk(run, settings["teacher_layer"])


def _self_transcendence(run: Run, settings: Settings) -> tuple[int, int]:
    """The guiding model makes two passes: with the label and without."""
    width, hidden = run.model.width, run.model.projector_width
    return run.tokens * chain(width, hidden, hidden, width), 2 * trunk(run, settings["guiding_layer"])


def _nothing(run: Run, settings: Settings) -> tuple[int, int]:
    """The student's own features are all that it takes."""
    return 0, 0


METHODS: dict[str, Callable[[Run, Settings], tuple[int, int]]] = {
    "dispersive": _nothing,
    "haste": _haste,
    "irepa": _irepa,
    "layersync": _nothing,
    "repa": _repa,
    "self_transcendence": _self_transcendence,
    "sra": _sra,
    "vae_align": _vae_align,
    "vae_repa": _vae_repa,
}
