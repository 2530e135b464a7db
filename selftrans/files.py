"""Files that are whole or not there: written beside their final name, synced, renamed; and locks of one machine."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from selftrans.errors import UserError

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # of a file system that has none


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the final name only if the block succeeds.

    The temporary name cannot be guessed, so that nobody can have put a link there. It holds host and process id: a
    killed writer leaves its temporary file, which the next writer of the same name on that host removes. Raises
    UserError if ``path`` is there but is no regular file (a folder, link, pipe or device is never replaced), OSError
    with ``path`` as its file if the system refuses.
    """
    path = Path(path)
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    with _named(path):
        descriptor, name = tempfile.mkstemp(".part", f"{_temporary(path)}{os.getpid()}.", path.parent)
        os.close(descriptor)
    part = Path(name)
    try:
        with _named(path, part):
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.chmod(0o666 & ~_umask())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes the place of a folder there only if the block succeeds.

    A folder that is replaced is there as a whole, or not at all: it steps aside before it is removed.
    Raises UserError if ``path`` is there but is no folder, OSError with ``path`` as its file if the system refuses.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"{path}: {kind_of(path.lstat().st_mode)}, where a folder is wanted; remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    with _named(path):
        part = _temporary_folder(path)
    try:
        with _named(path, part):
            yield part
            part.chmod(0o777 & ~_umask())
            if aside := _temporary_folder(path) if path.exists() else None:
                path.replace(aside)
            part.replace(path)
            if aside:
                shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _temporary_folder(path: Path) -> Path:
    return Path(tempfile.mkdtemp(".part", f"{_temporary(path)}{os.getpid()}.", path.parent))


def require_replaceable(path: Path) -> None:
    """Raise UserError if what is at ``path`` is something else than a regular file, or nothing."""
    try:
        mode = Path(path).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: {kind_of(mode)}, which nothing here replaces; name another file, or remove it")


def require_regular(path: Path) -> None:
    """Raise UserError unless ``path`` is a regular file, or a link to one; a pipe would be waited for without end."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: {kind_of(mode)}, where a file is wanted")


def kind_of(mode: int) -> str:
    """What a mode of `stat` is, in words."""
    kinds = {stat.S_ISREG: "a file", stat.S_ISDIR: "a folder", stat.S_ISLNK: "a link"}
    kinds |= {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((words for is_kind, words in kinds.items() if is_kind(mode)), "a device")


@contextmanager
def _named(path: Path, part: Path | None = None) -> Iterator[None]:
    """Errors of the system that name no file, or a temporary one of ``path``, name ``path``.

    Libraries may keep the system's reason to themselves (torch's and numpy's do for a full disk); it is asked again.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        known = isinstance(error, OSError) and error.errno is not None
        reason = error if known else _reason(part)
        if not isinstance(reason, OSError) or not _concerns(path, reason.filename):
            raise
        raise type(reason)(reason.errno, reason.strerror, str(path)) from error


def _concerns(path: Path, filename: str | None) -> bool:
    """Whether a file that the system names, if any, stands for ``path``."""
    if filename in (None, str(path.parent)):
        return True
    return any(part.startswith(_temporary(path)) for part in Path(str(filename)).parts)


def _reason(part: Path | None) -> OSError | None:
    """Why the system refuses more bytes of a file, or None if it takes them."""
    if part is None:
        return None
    try:
        with part.open("ab") as file:
            file.write(bytes(2**20))  # more than what is left of the last block
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def _temporary(path: Path) -> str:
    """The beginning of the names of temporary files of this host."""
    return f".{path.name}.{socket.gethostname()}."


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of ``path`` that writers left who were killed on this host."""
    prefix = _temporary(path)
    for found in path.parent.iterdir():
        pid = found.name.removeprefix(prefix).partition(".")[0]
        ours = found.name.startswith(prefix) and found.name.endswith(".part") and pid.isdecimal()
        if ours and not is_alive(int(pid)):
            shutil.rmtree(found) if stat.S_ISDIR(found.lstat().st_mode) else found.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0)  # there is no way to read it but to set it
    os.umask(umask)
    return umask


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is there, whoever it belongs to."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def create_text(path: Path, text: str) -> bool:
    """Write ``text`` (UTF-8) under a name that nobody has; returns whether it was free.

    The file appears with all that is in it, and for one alone of those who ask at once, on whatever machines: a hard
    link to a file of our own, which network file systems make as the server says, and once. Its count of links tells
    whether it was made, since the answer may be lost and the question asked again. A file system that has no hard links
    makes a new file for one alone too, but is seen to write it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    with _named(path):
        descriptor, name = tempfile.mkstemp(".part", f"{_temporary(path)}{os.getpid()}.", path.parent)
    part = Path(name)
    try:
        with _named(path, part):
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            part.chmod(0o666 & ~_umask())
            try:
                os.link(part, path)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return _create_in_place(path, text)
            with part.open("rb") as file:  # anew, so that no count is remembered
                return os.fstat(file.fileno()).st_nlink == 2
    finally:
        part.unlink(missing_ok=True)


def _create_in_place(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON atomically. Raises UserError if a number in it is not finite."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UserError(f"{path}: not written, since it would hold NaN or infinity") from error
    write_text(path, text + "\n")


def file_sha256(path: Path, tell: Callable[[int], object] = lambda count: None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; ``tell`` is called with how many more are read.

    Raises UserError if it is no regular file.
    """
    require_regular(path)
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
            tell(len(block))
    return digest.hexdigest()


def open_own(path: Path, mode: str = "a+") -> IO[str]:
    """Open a file of our own for appending, made if it is not there; a link, pipe or device there is refused."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a pipe that nobody reads
            raise
        raise UserError(f"{path}: a pipe, where a file is wanted") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: {kind_of(Path(path).lstat().st_mode)}, where a file is wanted; remove it")
    return open(path, mode, encoding="utf-8", opener=lambda *_: descriptor)


def own_temporary_folder(name: str) -> Path:
    """A folder of this user's alone among the temporary files of this machine, for locks.

    Its name can be guessed: raises UserError if somebody else could have put something there.
    """
    folder = Path(tempfile.gettempdir()) / f"selftrans-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise UserError(f"{folder}: no folder of your own that only you can write; remove it")
    return folder


def append_text(path: Path, text: str) -> None:
    """Add ``text`` (UTF-8) to a file of our own, made if it is not there."""
    with _named(path), open_own(path) as file:
        file.write(text)


def take(file: IO[str]) -> str | None:
    """Lock a file of `open_own` for this process until it is closed, without waiting; returns None, or who has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "another process"
    with _named(Path(file.name)):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return None
