"""The training loop: batch, loss, optimiser step, moving average, one line of log.

All randomness of a step is drawn for (seed, purpose, step), and the state holds everything else that the
next step depends on. So a run that was killed at any moment, and goes on, ends in the same weights bit for
bit; and all rows of a seed share initialisation, data order, noise, times and dropped labels.
"""

import gc
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from selftrans.data.latents import LatentDataset
from selftrans.failures import STOPPED
from selftrans.files import append_text, write_text
from selftrans.leases import Lease, held
from selftrans.methods.method import Context, Method, build_method
from selftrans.models.backbones import build_backbone
from selftrans.models.checkpoint import load_state, save_state, save_weights, state_identity
from selftrans.models.compiling import compile_in_place
from selftrans.models.ema import Ema
from selftrans.models.frozen import Frozen
from selftrans.plan.paths import STATE
from selftrans.plan.runs import Run
from selftrans.progress import progress_bar
from selftrans.provenance import provenance
from selftrans.seeding import generator
from selftrans.training.distributed import Ranks
from selftrans.training.input import Ahead, Examples, Input
from selftrans.training.log import log_line, read_lines
from selftrans.training.memory import need_of, out_of_memory_explained, require_memory
from selftrans.training.objective import Losses, Objective, allow_tf32

LOG_EVERY = 20  # steps


class Trainer:
    """One run: backbone, moving average, optimiser, and a method as long as the row's stop is ahead."""

    def __init__(self, run: Run, dataset: LatentDataset, context: dict[str, Frozen], ranks: Ranks) -> None:
        """``context`` holds the teacher or the encoder that the method needs, by name.

        Raises UserError if the batch cannot be divided among the ranks, or the GPU is too small, or too old.
        """
        self.run, self.family, self.ranks, self.device = run, run.family, ranks, ranks.device
        self.made_of = {"latents": dataset.sha256}  # what it learns from: hashes, which weights and state carry
        self.made_of |= {name: found.header["sha256"] for name, found in context.items()}
        self.step = 0
        self._pending: list[dict[str, Tensor]] = []  # scalars of steps not yet looked at
        backbone = build_backbone(**run.backbone)
        shared = run.row.initial_weights == "shared"
        backbone.initialise(generator(run.seed, "initialisation" if shared else f"initialisation of {run.name}"))
        if run.model.checkpoint_activations:
            backbone.checkpoint_activations()
        self.method: Method | None = None
        if run.row.method is not None:
            surroundings = Context(backbone, run.model.projector_width, **context)
            self.method = build_method(run.row.method, surroundings, generator(run.seed, "projector"))
        group = self.method.group if self.method else 1
        batch_size, most = self.family.batch_size, self.family.micro_batch
        self.micro_batch = ranks.micro_batch(run.id, batch_size, most, group)
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            require_memory(need_of(run, self.method, self.micro_batch), free, run)
        self.backbone = backbone.to(self.device).train()
        self.ema = Ema(self.backbone, self.family.average.decay, self.family.average.warmup)
        self.optimiser = self._optimiser(self.backbone)
        if self.method is not None:
            self.method.to(self.device).train()
            self.method_optimiser = self._optimiser(self.method)
        for frozen in context.values():
            frozen.compute_in(self.family.teacher_precision or self.family.precision)
        if self.family.compile:
            compile_in_place(*self.backbone.parts, *self.ema.model.parts)
            compile_in_place(*(self.method.children() if self.method else ()))  # its projector
            for frozen in context.values():
                frozen.compile()
        self.examples = Ahead(Input(run, dataset, ranks.part(batch_size), self.device))
        self._objective: nn.Module | None = None  # made at the first step that needs it
        self._stop_method_if_due()

    def _optimiser(self, module: nn.Module) -> torch.optim.AdamW:
        """AdamW over a module; backbone and method have one each, so that a method can leave."""
        recipe = self.family.optimiser
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(
            [{"params": parameters}],  # a group, unlike a list, may be empty: not every method has parameters
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    # ------------------------------------------------------------------------------------------ a step

    def train_step(self) -> None:
        """One optimiser step. What it did is kept on the device until `drain`, so that nothing waits for it."""
        allow_tf32(self.family.precision != "float32")
        parts = self.examples(self.step).split(self.micro_batch)
        if self._objective is None:
            self._objective = self._copied_objective(parts[0])
        losses = [self._backward(part, len(parts), last=part is parts[-1]) for part in parts]
        parameters = [*self.backbone.parameters(), *(self.method.parameters() if self.method else ())]
        norm = nn.utils.clip_grad_norm_(parameters, self.family.optimiser.clip or math.inf)
        learning_rate = self._learning_rate()
        for optimiser in self._optimisers():
            optimiser.param_groups[0]["lr"] = learning_rate
            optimiser.step()
            optimiser.zero_grad()
        self.ema.update(self.backbone, self.step)
        self.step += 1
        total, diffusion, method, feature_norm = zip(*losses, strict=True)
        measured = {"loss": total, "diffusion": diffusion, "method": method, "feature_norm": feature_norm}
        means = {name: torch.stack(values).mean() for name, values in measured.items() if values[0] is not None}
        self._pending.append({**means, "gradient_norm": norm})
        self._stop_method_if_due()

    def drain(self) -> list[dict[str, float]]:
        """Losses, gradient norm and, where the method captures features, their norm: of each step since the last call.

        They are means over all ranks, which ask together. Raises UserError at the first step whose loss is not finite.
        It is asked before anything is saved.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return []
        numbers = torch.stack([value for measured in pending for value in measured.values()])
        read = iter(self.ranks.mean(numbers.cpu()).tolist())  # one wait for the device, for all of them
        values = [{name: next(read) for name in measured} for measured in pending]
        for step, value in enumerate(values, start=self.step - len(values)):
            if not math.isfinite(value["loss"]):
                self.ranks.refuse(
                    f"{self.run.id}: the loss is not finite at step {step}: diffusion {value['diffusion']:g}, "
                    f"method {value['method']:g}; the last good state is kept. Lower the learning rate or the "
                    "weight of the method"
                )
        return values

    def check_finite(self) -> None:
        """Raise UserError if what would be saved holds NaN or infinity: a loss is of the weights before its step."""
        modules = [self.backbone, self.ema.model, *([self.method] if self.method else [])]
        tensors = [tensor for module in modules for tensor in module.state_dict().values()]
        for optimiser in self._optimisers():
            tensors += [tensor for moments in optimiser.state.values() for tensor in moments.values()]
        if not torch.stack([tensor.isfinite().all().to(self.device) for tensor in tensors]).all():
            self.ranks.refuse(
                f"{self.run.id}: the weights are not finite after step {self.step - 1}; the last good state is kept. "
                "Lower the learning rate or the weight of the method"
            )

    def _backward(self, part: Examples, parts: int, last: bool) -> Losses:
        """Add the gradient of one of equal ``parts`` of this rank's examples; the last one's goes to all ranks."""
        waiting = nullcontext() if last or self.ranks.count == 1 else self._objective.no_sync()
        with waiting:
            losses: Losses = self._objective(*part, self.ema.model, self.step)
            (losses.total / parts).backward()
        return Losses(*(None if value is None else value.detach() for value in losses))

    def _copied_objective(self, part: Examples) -> nn.Module:
        """The objective of what there is to train now, copied to all ranks.

        Ranks exchange gradients in buckets, whose order is known after the first backward pass, and so is then the
        order of sums. A pass that does not count makes it the same wherever a run goes on.
        """
        weight = self.run.row.weight or 0.0
        family = self.family
        objective = Objective(self.backbone, self.method, weight, family.cosine_weight, family.precision)
        copied = self.ranks.wrap(objective)
        if copied is not objective:
            copied(*part, self.ema.model, self.step).total.backward()
            copied.zero_grad()
        return copied

    def _optimisers(self) -> list[torch.optim.AdamW]:
        return [self.optimiser, *([self.method_optimiser] if self.method else [])]

    def _learning_rate(self) -> float:
        """Linear warm-up to a constant."""
        recipe = self.family.optimiser
        return recipe.learning_rate * min(1.0, (self.step + 1) / max(recipe.warmup_steps, 1))

    def _stop_method_if_due(self) -> None:
        """After the row's stop there is no method at all: no projector, no teacher, vanilla speed."""
        stop = self.run.recipe["stop"]
        if self.method is not None and stop is not None and self.step >= stop:
            self.method = self.method_optimiser = self._objective = None
            gc.collect()  # what exchanged its gradients holds on to itself, and would go on

    # ------------------------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, besides the step's number."""
        state = {
            "backbone": self.backbone.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        if self.method is not None:
            state["method"] = self.method.state_dict()
            state["method_optimiser"] = self.method_optimiser.state_dict()
        return state

    def load(self, step: int, state: dict[str, Any], made_of: dict[str, str]) -> None:
        """Go on from ``state``, which is that after ``step`` steps and knows of a teacher that has left since."""
        self.step, self.made_of = step, made_of | self.made_of
        self._stop_method_if_due()
        self.backbone.load_state_dict(state["backbone"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.method is not None:
            self.method.load_state_dict(state["method"])
            self.method_optimiser.load_state_dict(state["method_optimiser"])


WeightsPath = Callable[[int, str], Path]  # (step, "ema" or "online") -> where those weights go


def train(trainer: Trainer, until: int, work: Path, weights_path: WeightsPath, save_every: float = 300.0) -> None:
    """Train to step ``until``, writing weights at each milestone passed; goes on from the state in ``work``.

    The state is saved at milestones, every ``save_every`` seconds, and on SIGTERM or SIGUSR1, which then
    end the process with 128 + the signal's number. Of several ranks the first writes and shows, and all stop at the
    same step, whichever of them a signal came to. Raises Interrupted if another process has taken the run over.
    """
    run, ranks = trainer.run, trainer.ranks
    alone = held(work, run.id) if ranks.first else nullcontext()
    with alone as lease, _termination_signals() as received, out_of_memory_explained(run):
        _go_on(trainer, work / STATE, until)
        if trainer.step == until and lease is not None:  # a scheduler may have removed what this state had written
            _save_milestone(trainer, lease, weights_path)
        log = TrainingLog(work / "log.jsonl", run.id, trainer.step) if lease is not None else None
        saved = time.monotonic()
        with progress_bar(until, run.label, "step", initial=trainer.step, shown=ranks.first) as bar:
            while trainer.step < until:
                trainer.train_step()
                bar.update()
                at_milestone = trainer.step in run.milestones
                late = time.monotonic() - saved >= save_every
                number, late = ranks.greatest(received[0] if received else 0, late)
                due = at_milestone or number or late
                if due or trainer.step % LOG_EVERY == 0:
                    values = trainer.drain()
                    bar.set_postfix(loss=f"{values[-1]['loss']:.3f}", refresh=False)
                    if lease is not None:
                        lease.check()
                        log.add(trainer.step, values)
                if due:
                    trainer.check_finite()
                    saved = time.monotonic()
                    if lease is not None:
                        if at_milestone:
                            _save_milestone(trainer, lease, weights_path, last=trainer.step == until)
                        lease.check()
                        save_state(work / STATE, run, trainer.step, trainer.state(), trainer.made_of)
                if number:
                    if ranks.first:
                        name = signal.Signals(number).name
                        print(
                            f"{STOPPED}{run.label} by {name} at step {trainer.step}; the same command goes on",
                            flush=True,
                        )
                    raise SystemExit(128 + number)


def _go_on(trainer: Trainer, path: Path, until: int) -> None:
    """Load the run's state, unless it is already past ``until``: then the run is made again from its start.

    Raises UserError unless all ranks find the same, are about to do the same, and have the same software.
    """
    ranks, run = trainer.ranks, trainer.run
    versions = provenance()
    about = {"run": run.id, "last step": str(until), **trainer.made_of}
    ranks.require_same(about | {name: versions[name] for name in ("selftrans", "commit", "torch")})
    # From here on the first rank has the folder to itself.
    ranks.require_same({str(path): state_identity(path, run)})
    found = load_state(path, run, trainer.made_of)
    if found is None:
        _say(trainer, "starting")
    elif found[0] > until:
        _say(trainer, f"starting again, since its state is past step {until}")
    else:
        trainer.load(*found)
        _say(trainer, f"going on from step {trainer.step}")


def _say(trainer: Trainer, sentence: str) -> None:
    """Print what is the same for all ranks, once."""
    if trainer.ranks.first:
        print(f"{trainer.run.label}: {sentence}", flush=True)


def _save_milestone(trainer: Trainer, lease: Lease, weights_path: WeightsPath, last: bool = True) -> None:
    """Write the weights, as long as the run is ours: both kinds of the ``last`` milestone, the average in passing.

    What is passed and there already is not replaced, so that nothing looks newer.
    """
    kinds = {"online": trainer.backbone, "ema": trainer.ema.model}
    for kind, backbone in kinds.items() if last else [("ema", kinds["ema"])]:
        path = weights_path(trainer.step, kind)
        if last or not path.exists():
            lease.check()
            save_weights(path, backbone, trainer.run, trainer.step, kind, trainer.made_of)


@contextmanager
def _termination_signals() -> Iterator[list[int]]:
    """A list to which SIGTERM and SIGUSR1 (a cluster's warning of its time limit) append their number."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    previous = [signal.signal(number, remember) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


class TrainingLog:
    """A file with a line for some steps at a time; lines after the step gone on from are dropped."""

    def __init__(self, path: Path, run: str, step: int) -> None:
        lines = [line for line in read_lines(path, run) if line["step"] <= step]
        write_text(path, "".join(log_line(run, line) for line in lines))
        self.path, self.run = path, run
        self.time = time.perf_counter()

    def add(self, step: int, values: list[dict[str, float]]) -> None:
        """Write the means over the steps that ended with ``step``, and their steps per second."""
        now = time.perf_counter()
        speed = len(values) / (now - self.time)
        self.time = now
        means = {name: mean(value[name] for value in values) for name in values[0]}
        append_text(self.path, log_line(self.run, {"step": step, **means, "steps_per_second": round(speed, 2)}))
