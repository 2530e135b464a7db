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
    has_method: bool = False  # besides the blocks, of which a teacher's are some

    def seconds(self, pace: Pace, devices: int = 1) -> float:
        """How long it takes so many cores or GPUs that share it."""
        of_step = 3 * self.run.family.batch_size * (pace.method if self.has_method else 1)  # and two passes backward
        work = of_step * self.steps / pace.training + self.images / pace.sampling
        at_work = self.blocks * self.run.multiplications * work / 1e9 + pace.decoding * self.images
        return pace.job + at_work / devices


def training(run: Run, step: int) -> Work:
    """From the milestone before ``step`` to that."""
    before = run.milestone_before(step) or 0
    return steps_after(run, before, step - before)


def steps_after(run: Run, before: int, steps: int) -> Work:
    """So many steps, all with the method of the one after ``before``, or all without."""
    blocks, has_method = float(run.model.depth), run.has_method_after(before)
    if run.teacher is not None and has_method:
        blocks += 2 / 3 * run.teacher.layer  # forward with and without label; a step is a forward and two back
    return Work(run, steps=steps, blocks=blocks, has_method=has_method)


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
