"""Where the machines of a training meet.

``srun --nodes=N --ntasks=N selftrans train ... --nodes N`` starts one task on each, which starts the processes of its
machine. What SLURM tells each task about its step is enough for them to find one another, and nobody else.
"""

import os
import re
import socket
import zlib
from dataclasses import dataclass

from selftrans.errors import UserError

PORTS = range(15_000, 30_000)  # below those that the kernel gives to outgoing connections


@dataclass(frozen=True)
class Meeting:
    """Machines that train together, as one of them sees it."""

    name: str  # of this training alone: others may meet on the same machine
    nodes: int = 1
    host: str = "localhost"  # the first machine's address
    port: int = 0  # there; 0 is any that is free
    first: bool = True  # whether this is that machine
    here: str = "localhost"  # what the others call this one

    @classmethod
    def on_one_machine(cls) -> "Meeting":
        """Of the processes of this machine alone."""
        return cls(str(os.getpid()))

    @classmethod
    def of_slurm(cls, nodes: int) -> "Meeting":
        """Of the tasks of the step of SLURM that this process is one of.

        Raises UserError if it is none, if the step has not a task on each of so many ``nodes``, or if the address of
        the first is not known.
        """
        started = {name: os.environ.get(name) for name in ("SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS")}
        if set(started.values()) != {str(nodes)}:
            found = ", ".join(f"{name}={value or ''}" for name, value in started.items())
            raise UserError(
                f"--nodes: found {nodes}, but {found}; start a task on each machine: srun --nodes={nodes} "
                f"--ntasks={nodes} selftrans train ..., or, without SLURM, torchrun --nnodes {nodes} on each"
            )
        # A job that is brought back keeps its number; its steps are counted anew, but the old ones are gone.
        step = ".".join(os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        host, first = _first_host(), os.environ["SLURM_PROCID"] == "0"
        port = PORTS[zlib.crc32(step.encode()) % len(PORTS)]
        return cls(step, nodes, host, port, first, here=host if first else _address_towards(host))


def _first_host() -> str:
    """The address of the machine with the first task of this step: $MASTER_ADDR, if that is set.

    Raises UserError if the name that SLURM has for it is not known here.
    """
    if address := os.environ.get("MASTER_ADDR"):
        return address
    nodes = os.environ["SLURM_STEP_NODELIST"]
    first = re.sub(r"\[(\d+)[^]]*\]", r"\1", nodes).split(",")[0]  # node[007-010,012],other -> node007
    # The second, where nodes are not called as machines are: a job's srun is called on the first of its nodes.
    for host in filter(None, (first, os.environ.get("SLURM_LAUNCH_NODE_IPADDR"))):
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror:
            continue
        return host
    raise UserError(f"SLURM_STEP_NODELIST: found {nodes}, but {first} is no address here; set MASTER_ADDR to its own")


def _address_towards(host: str) -> str:
    """The address of this machine on the way to another; nothing is sent."""
    family, kind, *_, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as found:
        found.connect(address)
        return found.getsockname()[0]
