"""What can happen to a file that was whole: cut short, emptied, a bit of it altered, something else under its name."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def truncate(path: Path, share: float) -> None:
    """Keep the first ``share`` of the bytes, less than all of them."""
    content = path.read_bytes()
    _replace(path, content[: min(int(share * len(content)), len(content) - 1)])


def empty(path: Path) -> None:
    """No bytes are left."""
    _replace(path, b"")


def flip(path: Path, position: int, bit: int) -> None:
    """Alter one bit of the byte at ``position``, counted from the end if negative; any whole number will do."""
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    _replace(path, content)


def overwrite(path: Path, content: bytes = b"neither ours nor anything that we know\n") -> None:
    """Somebody else's file."""
    _replace(path, content)


def folder(path: Path) -> None:
    """A folder with a file in it."""
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def pipe(path: Path) -> None:
    """A pipe that nobody writes to: who opens it waits without end."""
    path.unlink()
    os.mkfifo(path)


def dangle(path: Path) -> None:
    """A link to nowhere."""
    path.unlink()
    path.symlink_to(path.with_name("gone"))


def swap(path: Path, other: Path) -> None:
    """Another whole file under this one's name."""
    _replace(path, other.read_bytes())


def _replace(path: Path, content: bytes | bytearray) -> None:
    path.unlink()  # which, unlike writing, is allowed for what is read-only
    path.write_bytes(content)


# Damage that needs nothing else to be said.
DAMAGE: dict[str, Callable[[Path], None]] = {
    "emptied": empty,
    **{f"cut at {share:.0%}": lambda path, share=share: truncate(path, share) for share in (0.02, 0.3, 0.9, 1)},
    "somebody else's": overwrite,
    "zeros": lambda path: overwrite(path, bytes(path.stat().st_size)),
    "a folder": folder,
    "a pipe": pipe,
    "a link to nowhere": dangle,
}


@contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """Whatever happens to these files in the block, they are again what they were after it; so are those not there."""
    before = {path: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in paths if path.is_file()}
    try:
        yield
    finally:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        for path, (content, mode) in before.items():
            path.write_bytes(content)
            path.chmod(mode)
