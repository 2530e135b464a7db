"""What a job asks a cluster's scheduler for: minutes, and MB of memory. GPUs and threads stand in its rule.

Minutes are twice what the scale's pace says; where it says none, they are the longest that a job may take
(`wall_time` of config.yaml). A training asks for no more than that either: it is stopped a little before, and goes on
in a next job. Every other job that took too long, or too much memory, asks for more when it is tried again.
"""

import math

from selftrans.config.families import Data
from selftrans.config.presets import Preset
from selftrans.plan import size
from selftrans.plan.cost import Work, sampling, training
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run

MARGIN = 2.0  # times the estimate
AT_LEAST = 20  # minutes, of which the last five begin with the profile's warning
PROCESS = 3000  # MB of a process with torch and its libraries, on a GPU
MOST = 4  # times the memory of a first attempt, at the most


class JobResources:
    """The resources of the jobs of a plan. ``attempt`` counts from 1."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.longest = plan, plan.project.wall_time

    def training_minutes(self, run: Run, step: int) -> int:
        """Of a training from the milestone before ``step`` to that."""
        return self._minutes(training(run, step), devices=self.plan.project.ranks)

    def sampling_minutes(self, run: Run, preset: Preset, shards: int, attempt: int) -> int:
        """Of a job that draws one of ``shards`` parts of a preset's samples."""
        return self._minutes(sampling(run, preset, shards), attempt=attempt)

    def other_minutes(self, minutes: int, attempt: int) -> int:
        """Of a job that takes about ``minutes`` at any scale."""
        return min(attempt * max(minutes, AT_LEAST), self.longest)

    def _minutes(self, work: Work, devices: int = 1, attempt: int = 1) -> int:
        pace = self.plan.scale.pace
        if pace is None:
            return self.longest
        estimate = math.ceil(attempt * MARGIN * work.seconds(pace, devices) / 60)
        return min(max(estimate, AT_LEAST), self.longest)

    def training_memory(self, run: Run) -> int:
        """MB of all processes of a training on a machine, of which the first writes its state."""
        state = size.state_bytes(run) / 1e6
        processes = self.plan.project.ranks // self.plan.project.nodes
        return processes * PROCESS + math.ceil(2 * state)

    @property
    def nodes(self) -> dict[str, int | str]:
        """What a training asks for besides, if it is to have several machines: a task on each, started by srun.

        The plugin's names: with ``mpi`` it leaves the call of srun to the job, with ``tasks_per_gpu`` 0 it asks for
        no more tasks than ``tasks``.
        """
        nodes = self.plan.project.nodes
        return {"mpi": "srun", "nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0} if nodes > 1 else {}

    def data_minutes(self, data: Data) -> int:
        """Of a job that reads a part of the images, all if there is but one, and goes on where it was ended."""
        estimate = 0 if data.source == "digits" else math.ceil(self.longest / data.parts)
        return min(max(estimate, AT_LEAST), self.longest)

    def images_memory(self, run: Run, preset: Preset, attempt: int) -> int:
        """MB of a job that has all samples of a preset at once."""
        images = preset.samples * 3 * run.family.data.size**2 / 1e6
        return self.memory(PROCESS + math.ceil(2 * images), attempt)

    def sampling_memory(self, run: Run, attempt: int) -> int:
        """MB of a job that draws samples batch by batch: its weights, and what they are read into."""
        return self.memory(PROCESS + math.ceil(2 * size.weights_bytes(run) / 1e6), attempt)

    def memory(self, megabytes: int, attempt: int) -> int:
        """``megabytes``, and more for a job that is tried again: it may have had too little."""
        return min(attempt, MOST) * megabytes
