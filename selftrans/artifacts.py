"""Files that say what they are: their kind, what they are of, and hashes of all that they hold.

There are three forms, and each holds one JSON header: a record (a JSON file, which is its header), tensors
(safetensors), and arrays (npz). A header has a ``kind``, whatever tells the file from others of its kind (run, step,
seed, preset, the hashes of what it was made of), for tensors and arrays their ``sha256``, and a ``seal``, the SHA-256
of the header itself. Whoever reads a file says what it must be: a truncated, altered or emptied one is refused, and so
is a whole one of another kind, run, step or seed under the right name.
"""

import errno
import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from selftrans.errors import UserError
from selftrans.files import atomic_path, require_regular, write_json

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 24  # bytes of a large file that are looked at together
AGAIN = "delete it and run the same command again"  # what to do about a damaged file that the workflow made

# What is raised by json, zipfile, zlib, numpy and safetensors (an Exception of its own, see `refuse_damage`) for bytes
# that are not what they should be, also where a forged size asks for more memory than there is.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, TokenError, MemoryError, RecursionError),
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, SyntaxError, OverflowError),
)


@contextmanager
def refuse_damage(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    """Turn what reading damaged bytes raises into a UserError; what the system refuses, such as permission, stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # which is said of a place before the file's beginning
            raise
        raise _damaged(path, error, remedy) from error
    except DAMAGE as error:
        raise _damaged(path, error, remedy) from error


def _damaged(path: Path, error: BaseException, remedy: str) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: truncated or damaged ({reason[:200]}); {remedy}")


# ------------------------------------------------------------------------------------------------- headers


def seal(kind: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """``about`` with its kind before it and its seal after it."""
    header = {"kind": kind, **about}
    return {**header, "seal": _seal_of(header)}


def _seal_of(header: Mapping[str, Any]) -> str:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_header(
    path: Path, header: Any, kind: str, expected: Mapping[str, Any] | None = None, remedy: str = AGAIN
) -> dict[str, Any]:
    """The header without its seal. Raises UserError unless it is whole, of that kind, and as ``expected``.

    ``expected`` is compared key by key, after what JSON makes of it (lists of tuples).
    """
    if not isinstance(header, dict) or "seal" not in header or "kind" not in header:
        raise UserError(f"{path}: not a file that selftrans wrote (it does not say what it is); {remedy}")
    found = {key: value for key, value in header.items() if key != "seal"}
    if _seal_of(found) != header["seal"]:
        raise UserError(f"{path}: altered after it was written (what it says of itself is not what it said); {remedy}")
    if header["kind"] != kind:
        raise UserError(f"{path}: {header['kind']}, where {kind} is wanted; {remedy}")
    for key, value in json.loads(json.dumps(expected or {})).items():
        if found.get(key) != value:
            raise UserError(
                f"{path}: not the {kind} asked for: its {key} is {_short(found.get(key))}, expected {_short(value)}; "
                f"{remedy}"
            )
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"


# ------------------------------------------------------------------------------------------------- records


def write_record(path: Path, kind: str, about: Mapping[str, Any]) -> None:
    """Write a record atomically. Raises UserError if a number in it is not finite."""
    try:
        record = seal(kind, about)
    except ValueError as error:
        raise UserError(f"{path}: not written, since it would hold NaN or infinity") from error
    write_json(path, record)


def read_record(
    path: Path, kind: str, expected: Mapping[str, Any] | None = None, remedy: str = AGAIN
) -> dict[str, Any]:
    """Read a file of `write_record`. Raises UserError if it is missing, damaged, altered or of something else."""
    require_regular(path)
    with refuse_damage(path, remedy):
        header = json.loads(Path(path).read_text(encoding="utf-8"))
    return check_header(path, header, kind, expected, remedy)


# ------------------------------------------------------------------------------------------------- tensors

DTYPES = {  # what safetensors calls them, and torch
    **{f"F{bits}": f"torch.float{bits}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"torch.int{bits}" for bits in (64, 32, 16, 8)},
    **{"BF16": "torch.bfloat16", "U8": "torch.uint8", "BOOL": "torch.bool"},
}


def tensors_sha256(tensors: Mapping[str, "Tensor"]) -> str:
    """SHA-256 over names, types, shapes and bytes of ``tensors``, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, kind: str, tensors: Mapping[str, "Tensor"], about: Mapping[str, Any]) -> str:
    """Write a safetensors file atomically, with its header; returns the SHA-256 of the tensors.

    Raises UserError if a tensor holds NaN or infinity: such a file is never there.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: not written, since {name} holds NaN or infinity: the training has diverged")
    sha256 = tensors_sha256(tensors)
    with atomic_path(path) as part:
        _write_safetensors(part, tensors, json.dumps(seal(kind, {**about, "sha256": sha256})))
    return sha256


def _write_safetensors(path: Path, tensors: Mapping[str, "Tensor"], header: str) -> None:
    """Write the format: the length of a JSON object, this, which says where each tensor is, and their bytes.

    The library's own writer leaves a file of another name beside ``path`` when it is killed.
    """
    import torch

    names = {getattr(torch, dtype.removeprefix("torch.")): name for name, dtype in DTYPES.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # so that all of them are aligned
    layout: dict[str, Any] = {"__metadata__": {"header": header}}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        entry = {"dtype": names[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
        layout[name] = entry
    text = json.dumps(layout, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(tensors[name].flatten().view(torch.uint8).numpy().data)


def load_tensors(
    path: Path, kind: str, expected: Mapping[str, Any] | None = None, remedy: str = AGAIN
) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read a file of `save_tensors`: (tensors, header).

    Raises UserError if the file is missing, truncated, altered, or not what is asked for.
    """
    from safetensors import SafetensorError, safe_open

    header = tensors_header(path, kind, expected, remedy)
    with refuse_damage(path, remedy):
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(error) from error
    if tensors_sha256(tensors) != header["sha256"]:
        raise UserError(f"{path}: altered after it was written (its SHA-256 is another); {remedy}")
    return tensors, header


def tensors_header(
    path: Path, kind: str, expected: Mapping[str, Any] | None = None, remedy: str = AGAIN
) -> dict[str, Any]:
    """The header of a file of `save_tensors` alone, without looking at the tensors. Raises UserError likewise."""
    from safetensors import SafetensorError, safe_open

    require_regular(path)
    with refuse_damage(path, remedy):
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get("header")
        except SafetensorError as error:
            raise ValueError(error) from error
        header = None if text is None else json.loads(text)
    return check_header(path, header, kind, expected, remedy)


# -------------------------------------------------------------------------------------------------- arrays


@dataclass(frozen=True, eq=False)
class Stream:
    """An array that is written block by block, one of them in memory at a time; blocks add up along the first axis."""

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Iterable[np.ndarray]

    @classmethod
    def of(cls, array: "np.ndarray | Stream") -> Self:
        """``array`` as one block, unless it is a stream already."""
        if isinstance(array, Stream):
            return array
        array = np.asarray(array)
        return cls(array.shape, array.dtype, [array])


def save_arrays(path: Path, kind: str, arrays: Mapping[str, np.ndarray | Stream], about: Mapping[str, Any]) -> str:
    """Write an uncompressed npz atomically, its header (JSON) as the array "header"; returns the arrays' SHA-256.

    Raises ValueError if the blocks of a stream do not add up to its shape, UserError if an array holds NaN or infinity.
    """
    digest = hashlib.sha256()
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name in sorted(arrays):
            stream = Stream.of(arrays[name])
            begin_array(digest, name, stream.dtype, stream.shape)
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                layout = {"descr": stream.dtype.str, "fortran_order": False, "shape": stream.shape}
                np.lib.format.write_array_header_1_0(file, layout)
                written = 0
                for block in stream.blocks:
                    if block.dtype.kind == "f" and not np.isfinite(block).all():
                        raise UserError(f"{path}: not written, since {name} holds NaN or infinity")
                    data = np.ascontiguousarray(block, stream.dtype).tobytes()
                    digest.update(data)
                    file.write(data)
                    written += block.size
            if written != np.prod(stream.shape, dtype=int):
                raise ValueError(f"{written} numbers came for {name} of shape {stream.shape}")
        header = json.dumps(seal(kind, {**about, "sha256": digest.hexdigest()}))
        with archive.open(zipfile.ZipInfo("header.npy"), "w") as file:
            np.lib.format.write_array(file, np.array(header), allow_pickle=False)
    return digest.hexdigest()


def arrays_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of ``arrays``, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        begin_array(digest, name, arrays[name].dtype, arrays[name].shape)
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def load_arrays(
    path: Path, kind: str, expected: Mapping[str, Any] | None = None, remedy: str = AGAIN
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file of `save_arrays`: (arrays, header).

    Raises UserError if the file is missing, truncated, altered, or not what is asked for.
    """
    header = arrays_header(path, kind, expected, remedy)
    with refuse_damage(path, remedy), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in sorted(file.files) if name != "header"}
    if arrays_sha256(arrays) != header.get("sha256"):
        raise UserError(f"{path}: altered after it was written (its SHA-256 is another); {remedy}")
    return arrays, header


def arrays_header(
    path: Path, kind: str, expected: Mapping[str, Any] | None = None, remedy: str = AGAIN
) -> dict[str, Any]:
    """The header of a file of `save_arrays` alone. Raises UserError likewise."""
    require_regular(path)
    with refuse_damage(path, remedy):
        require_stored(path)
    with refuse_damage(path, remedy), np.load(path, allow_pickle=False) as file:
        header = json.loads(str(file["header"])) if "header" in file.files else None
    return check_header(path, header, kind, expected, remedy)


def require_whole(path: Path) -> str | None:
    """Read all of a record, of tensors or of arrays, a little at a time: its kind, or None if it is no file of ours.

    Raises UserError if it is damaged, or altered after it was written.
    """
    header = whole_header(path)
    return None if header is None else header["kind"]


def whole_header(
    path: Path, kind: str | None = None, expected: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """As `require_whole`, but the header; raises UserError too if it is not of that ``kind``, and as ``expected``."""
    require_regular(path)
    with refuse_damage(path):
        header = _find_header(path)
    if header is None:
        return None
    check_header(path, header, kind or header["kind"], expected)
    if path.suffix != ".json":
        with refuse_damage(path):
            if _content_sha256(path) != header["sha256"]:
                raise UserError(f"{path}: altered after it was written (its SHA-256 is another); {AGAIN}")
    return header


def _find_header(path: Path) -> dict[str, Any] | None:
    """What a file says of itself, if it says it as those of ours do."""
    match path.suffix:
        case ".json":
            header = json.loads(path.read_text(encoding="utf-8"))
        case ".npz":
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(str(file["header"])) if "header" in file.files else None
        case ".safetensors":
            text = _safetensors_layout(path)[0].get("__metadata__", {}).get("header")
            header = None if text is None else json.loads(text)
    return header if isinstance(header, dict) and {"kind", "seal"} <= header.keys() else None


def _safetensors_layout(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON object of a safetensors file, and where the tensors begin."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ValueError("shorter than it says")
        return json.loads(file.read(length)), 8 + length


def _content_sha256(path: Path) -> str:
    """The SHA-256 of the tensors or arrays of a file, as their headers have it."""
    digest = hashlib.sha256()
    if path.suffix == ".npz":
        require_stored(path)
        with zipfile.ZipFile(path) as archive:
            for name in sorted({name.removesuffix(".npy") for name in archive.namelist()} - {"header"}):
                with archive.open(f"{name}.npy") as file:
                    np.lib.format.read_magic(file)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                    begin_array(digest, name, dtype, shape)
                    while block := file.read(BLOCK):
                        digest.update(block)
        return digest.hexdigest()
    layout, begin = _safetensors_layout(path)
    with path.open("rb") as file:
        for name in sorted(set(layout) - {"__metadata__"}):
            entry = layout[name]
            digest.update(f"{name}:{DTYPES[entry['dtype']]}:{tuple(entry['shape'])};".encode())
            first, last = entry["data_offsets"]
            file.seek(begin + first)
            for size in (*[BLOCK] * ((last - first) // BLOCK), (last - first) % BLOCK):
                digest.update(file.read(size))
    return digest.hexdigest()


def begin_array(digest: "hashlib._Hash", name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Add to the hash of arrays what comes before the bytes of each, which come in the order of the names."""
    digest.update(f"{name}:{dtype.str}:{tuple(shape)};".encode())


def require_stored(path: Path) -> None:
    """Raise ValueError unless nothing is compressed: then what is read takes no more memory than disk."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise ValueError(f"{info.filename} is compressed, which selftrans never does")
