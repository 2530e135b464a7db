"""What a training takes of memory, by arithmetic: no torch here."""

from dataclasses import dataclass

from selftrans.plan.runs import Run
from selftrans.plan.size import FLOAT, parameters, teacher_bytes

HALF = 2  # bytes of a bfloat16
LABEL = 8  # bytes
PROCESS = 750_000_000  # bytes of a process with torch, on a CPU: 700 to 730 MB of one that does next to nothing


@dataclass(frozen=True)
class Need:
    """Bytes, at the least: what a method keeps for its own backward pass is not in it."""

    weights: int  # and their gradients, moments and moving average
    example: int  # activations that wait for the backward pass
    micro_batch: int

    @property
    def total(self) -> int:
        """Of a step."""
        return self.weights + self.micro_batch * self.example


def need_of(run: Run, micro_batch: int, of_method: int = 0) -> Need:
    """Of training a run, with a method of so many parameters. Teacher and encoder are not in it."""
    trained = 4 * FLOAT  # weight, gradient, two moments
    copies = HALF if _is_halved(run) else 0  # autocast's
    count = parameters(run.backbone)
    weights = count * (trained + FLOAT + copies) + of_method * (trained + copies)  # the backbone has an average
    return Need(weights, example_bytes(run), micro_batch)


def need_with_teacher(run: Run, ranks: int) -> Need:
    """Of each of the ``ranks`` that train a run, with its frozen teacher."""
    batch = run.family.batch_size // ranks
    need = need_of(run, min(batch, run.family.micro_batch or batch))
    teacher = 0 if run.teacher is None else teacher_bytes(run.teacher.run.backbone, run.teacher.layer)
    return Need(need.weights + teacher, need.example, need.micro_batch)


def example_bytes(run: Run) -> int:
    """Activations of one example.

    With checkpointed activations only the tokens between blocks wait; a block at a time is run again, and has all of
    its own then.
    """
    block, depth = _bytes(run, *_block(run)), run.model.depth
    between = FLOAT * run.tokens * run.model.width
    blocks = depth * between + block if run.model.checkpoint_activations else depth * block
    return blocks + _bytes(run, *_ends(run)) + LABEL


def _bytes(run: Run, floats: int, others: int) -> int:
    """Of numbers of which autocast halves the ``others``."""
    return FLOAT * floats + (HALF if _is_halved(run) else FLOAT) * others


def _is_halved(run: Run) -> bool:
    return run.family.precision == "bfloat16"


def _block(run: Run) -> tuple[int, int]:
    """(floats, others) that a block keeps, of T tokens of width D."""
    width, of_heads = run.model.width, run.tokens * run.model.heads
    tokens = run.tokens * width
    # Twice tokens and their norm, as floats; twice that modulated, and what is gated; queries, keys, values, and what
    # is attended; the softmax's denominators; SiLU of the conditioning, six modulations, two scales plus one.
    floats, others = 4 * tokens + of_heads, 8 * tokens + 9 * width
    if run.model.backbone == "lightningdit":
        # Twice the RMS norm before its weight, and a token's scale; turned queries and keys; SwiGLU.
        floats += 2 * tokens + 2 * run.tokens
        others += 2 * tokens + 4 * run.tokens * (8 * width // 3)
        if run.model.qk_norm:  # as floats, which are halved afterwards
            floats += 3 * tokens + 2 * of_heads
            others += 3 * tokens if _is_halved(run) else 0
    else:
        # Twice a token's mean and scale; the MLP's hidden numbers before and after GELU.
        floats, others = floats + 4 * run.tokens, others + 8 * tokens
        if run.model.qk_norm:
            floats, others = floats + 4 * of_heads, others + 3 * tokens
    return floats, others


def _ends(run: Run) -> tuple[int, int]:
    """(floats, others) that is kept before the blocks and after them."""
    width, backbone = run.model.width, run.backbone
    tokens = run.tokens * width
    # The latent, cosines and sines of its time, the conditioning and what it comes from; the last block's tokens, their
    # norm, and that modulated.
    floats, others = width + 2 * tokens, backbone["channels"] * backbone["input_size"] ** 2 + 256 + 4 * width + tokens
    return floats + (tokens + run.tokens if run.model.backbone == "lightningdit" else 2 * run.tokens), others
