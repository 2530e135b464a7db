"""What work costs: how many blocks how many images go through, and how long that takes at a pace."""

from dataclasses import dataclass

from selftrans.config.presets import Preset
from selftrans.config.scales import Pace
from selftrans.plan.runs import Run


@dataclass(frozen=True)
class Work:
    """Of one job: steps of training or images to sample, and the blocks that each of them goes through."""

    run: Run
    steps: int = 0
    images: int = 0
    blocks: float = 0.0
    with_method: float = 0.0  # those of the blocks that belong to steps with a method

    def seconds(self, pace: Pace, devices: int = 1) -> float:
        """How long it takes so many cores or GPUs that share it."""
        trained = 3 * self.steps * self.run.family.batch_size  # forward, and two passes' worth backward
        trained *= self.blocks + (pace.method - 1) * self.with_method
        work = trained / pace.training + self.blocks * self.images / pace.sampling
        return pace.job + (self.run.multiplications * work / 1e9 + pace.decoding * self.images) / devices


def training(run: Run, step: int) -> Work:
    """Of the job that ends at milestone ``step``."""
    return steps_between(run, run.milestone_before(step) or 0, step)


def steps_between(run: Run, begin: int, end: int) -> Work:
    """The steps after ``begin`` up to ``end``, of which some may have a method."""
    share = run.guided_steps(begin, end) / (end - begin)
    teacher = 0.0 if run.teacher is None else 2 / 3 * run.teacher.layer  # forward with and without label
    with_method = share * (run.model.depth + teacher)
    return Work(run, end - begin, blocks=(1 - share) * run.model.depth + with_method, with_method=with_method)


def sampling(run: Run, preset: Preset, shards: int = 1) -> Work:
    """One of ``shards`` parts of a preset's samples."""
    return Work(run, images=-(-preset.samples // shards), blocks=passes(preset) * run.model.depth)


def passes(preset: Preset) -> float:
    """How often an image goes through the model; dopri5, which chooses its steps itself, needs about 50 passes."""
    steps = preset.steps or 50
    if preset.sampler == "heun_ode":
        steps = 2 * steps - 1
    begin, end = preset.cfg_interval
    return steps * (1 + (end - begin if preset.cfg_scale != 1 else 0))
