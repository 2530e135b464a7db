"""Jobs that begin at once: a process that has loaded all libraries makes a copy of itself for each.

PyTorch and diffusers take some five seconds of a core to load, which is more than many a job of a small scale works. So
the workflow starts a server (`start`). ``python -m selftrans <verb> ... --threads 1`` hands its arguments, environment,
folder and open files to it (`ask`), passes signals on, and ends as the copy ends. Where no server answers, a job
loads everything itself; nothing but time depends on it.

Each job imports this first, so nothing heavy is imported here.
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from selftrans.gpus import visible

ADDRESS = "SELFTRANS_WARM"  # of the environment: the server's socket
ONE_THREAD = ("--threads", "1")  # the last options of the jobs that it takes: libraries are loaded for so many
LOADED = (
    "selftrans.training.trainer",
    "selftrans.sampling.image_model",
    "selftrans.evaluation.published",
    "selftrans.evaluation.result",
    "selftrans.evaluation.statistics",
    "torch._dynamo",  # which optimisers load when they are made
)
ENOUGH = 8  # jobs, which take longer to load all that than the server does
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
LENGTH, CODE = struct.Struct("!I"), struct.Struct("!i")
TAKEN = b"!"


def ask(arguments: Sequence[str]) -> int | None:
    """Have a copy of the server do what ``arguments`` say: its exit code, or None if no server takes it.

    A copy that was ended by a signal ends this process by the same one.
    """
    if ADDRESS not in os.environ or tuple(arguments[-2:]) != ONE_THREAD:
        return None
    request = {"arguments": list(arguments), "folder": str(Path.cwd()), "environment": dict(os.environ)}
    message = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as server, contextlib.suppress(ConnectionError, FileNotFoundError):
        server.connect(os.environ[ADDRESS])
        previous = {n: signal.signal(n, lambda n, _: server.sendall(bytes([n]))) for n in PASSED_ON}
        socket.send_fds(server, [LENGTH.pack(len(message))], [0, 1, 2])
        server.sendall(message)
        if server.recv(1) == TAKEN:
            reply = server.recv(CODE.size)
            return _end_as(CODE.unpack(reply)[0] if reply else -signal.SIGKILL)  # the server itself was killed
        for number, handler in previous.items():
            signal.signal(number, handler)
    return None


def _end_as(code: int) -> int:
    """The exit code; a negative one is that of a signal, by which this process ends then."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def start(jobs: int) -> None:
    """Start a server for the ``jobs`` of this process, if they are enough; it ends with this process and its last job.

    None is started where there are GPUs, which copies cannot share, or where the system does not offer what it takes.
    """
    if jobs < ENOUGH or visible() or not hasattr(os, "pidfd_open"):
        return
    address = Path(tempfile.mkdtemp(prefix="selftrans-")) / "socket"
    ended, kept_open = os.pipe()  # the second end is this process's alone, and is closed when that ends
    os.set_blocking(kept_open, False)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(1024)
        given = (listening.fileno(), ended)
        subprocess.Popen(
            [sys.executable, "-m", "selftrans.warm", *map(str, given)],
            pass_fds=given,
            stdin=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            start_new_session=True,  # Ctrl-C is for jobs, which pass it on
        )
    os.close(ended)
    os.environ[ADDRESS] = str(address)


class Server:
    """Waits for jobs on a socket; a connection for each stays open until its copy ends."""

    def __init__(self, listening: socket.socket, ended: int) -> None:
        self.listening, self.ended = listening, ended
        self.selector = selectors.DefaultSelector()
        self.selector.register(listening, selectors.EVENT_READ, self._take)
        self.selector.register(ended, selectors.EVENT_READ, self._close)

    def serve(self) -> list[str] | None:
        """Returns the arguments of a job in each copy, and None in the server, when nobody needs it any more."""
        while self.selector.get_map():
            for key, _ in self.selector.select():
                if (arguments := key.data()) is not None:
                    return arguments
        return None

    def _take(self) -> list[str] | None:
        """Make a copy for the next job, in which this returns its arguments."""
        connection, _ = self.listening.accept()
        header, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        message = b""
        while header and len(message) < LENGTH.unpack(header)[0]:
            if not (more := connection.recv(LENGTH.unpack(header)[0] - len(message))):
                break
            message += more
        try:
            request = json.loads(message)
        except ValueError:  # it was killed as it asked
            connection.close()
            request = None
        pid = os.fork() if request else None
        if pid == 0:
            connection.close()
            self._become(request, files)
            return request["arguments"]
        for file in files:
            os.close(file)
        if pid is not None:
            connection.sendall(TAKEN)
            Copy(self.selector, connection, pid)
        return None

    def _become(self, request: dict, files: list[int]) -> None:
        """In a copy: nothing of the server's stays open, and all that the job was started with is there."""
        for key in list(self.selector.get_map().values()):
            os.close(key.fd) if isinstance(key.fileobj, int) else key.fileobj.close()
        self.selector.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])

    def _close(self) -> None:
        """Whoever started the server has ended: no more jobs come."""
        self.selector.unregister(self.ended)
        self.selector.unregister(self.listening)
        shutil.rmtree(Path(self.listening.getsockname()).parent, ignore_errors=True)
        self.listening.close()


class Copy:
    """A job at work, and who waits for it."""

    def __init__(self, selector: selectors.BaseSelector, connection: socket.socket, pid: int) -> None:
        self.selector, self.connection, self.pid = selector, connection, pid
        self.process = os.pidfd_open(pid)
        selector.register(connection, selectors.EVENT_READ, self._pass_on)
        selector.register(self.process, selectors.EVENT_READ, self._end)

    def _pass_on(self) -> None:
        """Signals to the copy. Whoever started the job may have been killed: then it is killed too."""
        try:
            numbers = self.connection.recv(64)
        except ConnectionError:
            numbers = b""
        if not numbers:
            self.selector.unregister(self.connection)
        for number in numbers or [signal.SIGKILL]:
            signal.pidfd_send_signal(self.process, number)

    def _end(self) -> None:
        """Tell how the copy ended."""
        _, status = os.waitpid(self.pid, 0)
        self.selector.unregister(self.process)
        with contextlib.suppress(KeyError):
            self.selector.unregister(self.connection)
        with contextlib.suppress(ConnectionError):
            self.connection.sendall(CODE.pack(os.waitstatus_to_exitcode(status)))
        self.connection.close()
        os.close(self.process)


def _serve(listening: int, ended: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its last job
    for module in LOADED:
        importlib.import_module(module)
    if len(list(Path("/proc/self/task").iterdir())) == 1:  # the copy of a process has but one thread
        gc.freeze()  # so that copies share what is there
        arguments = Server(socket.socket(fileno=listening), ended).serve()
        if arguments is not None:
            _work(arguments)
    os._exit(0)  # nothing that was loaded need be taken down again


def _work(arguments: list[str]) -> None:
    """In a copy: do the job, and end."""
    from selftrans.commands import main

    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:  # as Python itself ends with it
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
