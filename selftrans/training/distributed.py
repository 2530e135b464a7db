"""What the processes of one training need: their places, what they agree on, and how they end together.

torchrun (or ``selftrans train --ranks``) starts them and tells each its rank. Gradients travel by NCCL between GPUs
and by gloo between CPUs. What the processes say to each other besides (save now, stop now) always goes by gloo, from
host to host: it waits for no GPU, and a process that has died is noticed at the next step.
"""

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from selftrans.errors import Interrupted, UserError
from selftrans.training.nodes import Meeting

TIMEOUT = 600.0  # seconds that a process waits for the others
GRACE = "300"  # seconds that processes have to save their state after a signal


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, and the place of this one among them."""

    device: torch.device
    rank: int = 0
    count: int = 1
    control: dist.ProcessGroup | None = None  # gloo; None for a process alone

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """The places of this process in the batch of a step; all have equally many."""
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module`` with gradients that are means over all processes, which start with the weights of the first."""
        if self.control is None:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():  # newer versions of torch have another name for the second option
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            return DistributedDataParallel(module, devices, broadcast_buffers=False, gradient_as_bucket_view=True)

    def greatest(self, *numbers: int) -> list[int]:
        """The greatest of each number that any process has."""
        if self.control is None:
            return list(numbers)
        tensor = torch.tensor(numbers)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, self.control)
        return tensor.tolist()

    def mean(self, numbers: Tensor) -> Tensor:
        """The means over all processes of numbers on the CPU."""
        if self.control is None:
            return numbers
        numbers = numbers.double()
        dist.all_reduce(numbers, dist.ReduceOp.SUM, self.control)
        return numbers / self.count

    def require_same(self, about: Mapping[str, str]) -> None:
        """Wait for all processes; raise UserError unless each says the same ``about`` what it is going to do."""
        if self.control is None:
            return
        said: list[Mapping[str, str]] = [{}] * self.count
        dist.all_gather_object(said, dict(about), self.control)
        for rank, other in enumerate(said):
            for key, value in said[0].items():
                if other.get(key) != value:
                    self.refuse(
                        f"the ranks do not agree: {key}: rank 0 has {value}, rank {rank} has {other.get(key)}; start "
                        "all of them with the same command, configuration and files"
                    )

    def refuse(self, sentence: str) -> NoReturn:
        """End all processes, all of which come here, and let the first say why.

        Raises UserError in the first, SystemExit in the others once it is gone.
        """
        if self.first:
            raise UserError(sentence)
        with suppress(RuntimeError):
            dist.barrier(self.control)
        raise SystemExit(2)

    def micro_batch(self, what: str, batch_size: int, most: int | None, group: int | None) -> int:
        """How many examples a process takes at once: at most ``most``, and equally many each time.

        ``group`` examples in a row stay together, or with None all. Refuses, and says what would do, if ``batch_size``
        cannot be divided so.
        """
        group = batch_size if group is None else group
        together = f" in groups of {group}, which its method needs" if group > 1 else ""
        fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0 and batch_size // n % group == 0]
        if self.count not in fitting:
            allowed = ", ".join(map(str, fitting)) or f"none, since {batch_size} is no multiple of {group}"
            self.refuse(f"{what}: ranks: found {self.count} for a batch of {batch_size}{together}; allowed: {allowed}")
        part = batch_size // self.count
        sizes = [n for n in range(1, part + 1) if part % n == 0 and n % group == 0]
        if most is not None and most < sizes[0]:
            self.refuse(f"{what}: micro_batch: found {most} for examples{together}; allowed: {sizes[0]} or more")
        return max(size for size in sizes if most is None or size <= most)


@contextmanager
def join(timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """This process's place among those that torchrun started; without torchrun it is alone.

    Raises UserError if a process has no GPU of its own on a machine that has some, Interrupted if another one does not
    come, ends by itself or says nothing for ``timeout`` seconds.
    """
    rank, count = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if count == 1:
        yield Ranks(device)
        return
    if device.type == "cuda":
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise UserError(f"rank {rank} has no GPU: this machine has {gpus}; start at most {gpus} processes on it")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
        control = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        yield Ranks(device, rank, count, control)
        dist.barrier(control)  # none leaves while the first still writes
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).split("] ", 1)[-1].split(". ")[0]  # without the place in gloo's code, and its advice
        raise Interrupted(
            f"rank {rank} of {count}: another rank has ended or does not answer ({reason[:200]}); the last state is "
            "kept, and the same command goes on from it"
        ) from error
    dist.destroy_process_group()


def launch(ranks: int, meeting: Meeting, timeout: float, arguments: Sequence[str]) -> NoReturn:
    """Run ``selftrans`` with ``arguments`` in ``ranks`` processes of this machine, and end as the first that failed.

    The machines of ``meeting`` do so together. SIGTERM and SIGUSR1 to this process reach all of them, and they have
    `GRACE` seconds to save. Raises Interrupted if another machine does not come, or is lost: one that says nothing is
    waited for ``timeout`` seconds.
    """
    logging.disable(logging.ERROR)  # what went wrong, the processes say themselves
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", GRACE)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    patience = math.ceil(timeout)
    config = LaunchConfig(
        min_nodes=meeting.nodes,
        max_nodes=meeting.nodes,
        nproc_per_node=ranks,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{meeting.host}:{meeting.port}",
        rdzv_configs={"is_host": meeting.first, "join_timeout": patience, "read_timeout": patience},
        local_addr=meeting.here,
        run_id=meeting.name,
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGUSR1",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "selftrans", *arguments)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        raise SystemExit(code if code >= 0 else 128 - code) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    except RendezvousError as error:
        raise Interrupted(
            f"{meeting.here}: another of {meeting.nodes} nodes did not come, has ended or does not answer (they meet "
            f"at {meeting.host}, port {meeting.port}); the last state is kept, and the same command goes on from it"
        ) from error
    raise SystemExit(0)
