"""A SLURM cluster on this machine: real daemons, two emulated nodes, GPUs that are device files of other kinds.

    python tests/slurm/cluster.py

starts one, says how to use it, and takes it down after Ctrl-C. Everything is its own (ports, key, configuration, logs,
in a temporary folder), so that several can run side by side, and beside a cluster that the machine belongs to. SLURM's
commands find it by their place on PATH alone: Snakemake's jobs lose SLURM_CONF on their way, but not PATH.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scancel", "sinfo", "scontrol")
CLIENTS = (*PROGRAMS[3:], "sacct", "sacctmgr")
DEBIAN = "on Debian: apt install slurmctld slurmd slurm-client munge"
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # daemons are on root's path alone
NODES = {"n1": ("/dev/null", "/dev/zero"), "n2": ("/dev/random", "/dev/full")}  # which gives them two GPUs each
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmstepd")  # each works in its folder; the last inherits slurmd's
PATIENCE = 60.0  # seconds until a daemon answers

CONFIGURATION = """
ClusterName=emulated
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
MailProg=/bin/true
# Containers delegate no cgroups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
# More CPUs than the machine has: nothing waits for them.
SlurmdParameters=config_overrides
DefMemPerCPU=500
GresTypes=gpu
JobRequeue=1
# Finished jobs stay visible to squeue; what is told to end has this long for it.
MinJobAge=3600
KillWait=15
OverTimeLimit=0
SlurmdTimeout=10
ReturnToService=2
"""


class Cluster:
    """The cluster, from its beginning to its end: ``with Cluster(folder) as cluster``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.daemons: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """In which SLURM's commands mean this cluster."""
        return os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    def __enter__(self) -> Self:
        for name in ("bin", "state"):
            (self.folder / name).mkdir(parents=True)
        self._write_configuration()
        (self.folder / "munge.key").touch(mode=0o600)
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        # Reads until this process ends, be it killed, and then takes the cluster down.
        guard = [sys.executable, __file__, str(self.folder)]
        self.guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        try:
            own = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed", "key-file": "key"}
            options = [f"--{option}={self.folder}/munge.{ending}" for option, ending in own.items()]
            # Forced, since clients are this user's alone, and others need no way to the socket.
            self._start("munged", "--foreground", "--force", *options, name="munged")
            self._until((self.folder / "munge.socket").exists, "munged")
            self._start("slurmctld", "-D", "-f", f"{self.folder}/slurm.conf", name="slurmctld")
            for node in NODES:
                self.bring_up(node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.guard.communicate()
        _kill(self.folder)  # if somebody has ended the guard
        for daemon in self.daemons:
            daemon.wait()

    def run(self, *command: str) -> str:
        """What a command of SLURM's prints. Raises CalledProcessError."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout

    def states(self) -> dict[str, str]:
        """The state of each node, such as idle, mixed or down."""
        return dict(line.split() for line in self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines())

    def bring_up(self, node: str) -> None:
        """Switch a node on, and wait until it takes jobs."""
        self._start("slurmd", "-D", "-N", node, "-f", f"{self.folder}/slurm.conf", name=node)
        self._until(lambda: self.states()[node] in ("idle", "mixed", "allocated"), node)

    def take_down(self, node: str) -> None:
        """Pull a node's plug: every process there ends at once; SLURM is told, which would notice by itself later."""
        _kill(self.folder / node)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=unplugged")

    def _start(self, program: str, *arguments: str, name: str) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("a") as log:
            daemon = subprocess.Popen(
                [_path(program), *arguments], cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        self.daemons.append(daemon)

    def _until(self, condition, name: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(subprocess.CalledProcessError):  # slurmctld does not listen yet
                if condition():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not answer:\n{(self.folder / f'{name}.log').read_text()}")
            time.sleep(0.1)

    def _write_configuration(self) -> None:
        first, *others = free_ports(1 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(host=host, port=first, user=getpass.getuser(), folder=self.folder)
        gres = "AutoDetect=off\n"
        for (node, devices), port in zip(NODES.items(), others, strict=True):
            text += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            text += f"CPUs=8 RealMemory=200000 Gres=gpu:{len(devices)} State=UNKNOWN\n"
            gres += "".join(f"NodeName={node} Name=gpu File={device}\n" for device in devices)
        text += f"PartitionName=emulated Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(gres)
        for name in CLIENTS:
            client = self.folder / "bin" / name
            client.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {_path(name)} "$@"\n')
            client.chmod(0o755)


def missing() -> list[str]:
    """What this machine lacks of SLURM's programs."""
    return [program for program in PROGRAMS if _path(program) is None]


def _path(program: str) -> str | None:
    return shutil.which(program, path=SEARCHED)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _at_work_in(folder: Path) -> Iterator[psutil.Process]:
    """Daemons that work in this folder or below it, and all that they started, jobs included."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # such as somebody else's
            if process.name() in DAEMONS and Path(process.cwd()).is_relative_to(folder):
                yield from (process, *process.children(recursive=True))


def _kill(folder: Path) -> None:
    """End all of that at once: none starts another meanwhile, or tells SLURM that another has ended."""
    still: set[psutil.Process] = set()
    while found := set(_at_work_in(folder)) - still:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        still |= found
    for process in still:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    while any(map(_lives, still)):
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def guard(folder: str) -> None:
    """Wait for the end of whoever started this, and take the cluster in ``folder`` down."""
    sys.stdin.buffer.read()
    _kill(Path(folder))


def main() -> None:
    """Start a cluster by hand."""
    if programs := missing():
        sys.exit(f"SLURM is not installed ({', '.join(programs)} missing); {DEBIAN}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Cluster(Path(folder)) as cluster:
        print(f"Two nodes of 8 CPUs and 2 GPUs that are none; logs in {cluster.folder}. In another shell:")
        print(f"  export PATH={cluster.folder}/bin:$PATH")
        print("  sinfo; snakemake --workflow-profile profiles/slurm results/table5.csv")
        print("Ctrl-C ends it, and all its jobs.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    guard(sys.argv[1]) if sys.argv[1:] else main()
