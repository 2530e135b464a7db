"""Files go where the scale says; what is there and right stays. A download that was cut off goes on."""

import argparse
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator

from selftrans import __version__
from selftrans.commands.common import plan_of
from selftrans.config.publications import Publication
from selftrans.config.reading.publications import load_publications
from selftrans.errors import UserError
from selftrans.files import file_sha256, require_regular, require_replaceable, write_text
from selftrans.leases import Lease, held
from selftrans.plan.outside import Outside, outside
from selftrans.plan.plan import Plan
from selftrans.plan.published import Item, items_of
from selftrans.progress import progress_bar

BLOCK = 2**20  # bytes
PATIENCE = 60  # seconds without a byte


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("asked", nargs="?", metavar="SCALE", help="as --scale")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, such as inception (default: all)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--list", action="store_true", help="what is needed, how large it is, its licence, what is there"
    )
    shown.add_argument("--print", action="store_true", help="for a machine without a network: what to copy where")


def run(arguments: argparse.Namespace) -> None:
    """Bring what the scale needs from outside, as far as it can be had freely."""
    arguments.scale = arguments.asked or arguments.scale
    plan = plan_of(arguments)
    needed = _named(outside(plan), arguments.names)
    publications = load_publications(plan.project.folder)
    items = [item for found in needed for item in items_of(found, publications)]
    if arguments.list:
        _list(needed, publications)
    elif arguments.print:
        _print(items)
    else:
        _fetch(items)
    if not arguments.list:
        _tell_of_the_rest(plan, needed, publications)


def _named(needed: list[Outside], names: list[str]) -> list[Outside]:
    known = {found.name for found in needed}
    for name in names:
        if name not in known:
            raise UserError(f"found {name!r}; allowed: {', '.join(sorted(known)) or 'nothing, which this scale needs'}")
    return [found for found in needed if not names or found.name in names]


# ------------------------------------------------------------------------------------------- what is said


def _list(needed: list[Outside], publications: dict[str, Publication]) -> None:
    for found in needed:
        publication, items = publications.get(found.name), list(items_of(found, publications))
        there = all(item.path.exists() for item in items) if items else found.path.exists()
        print(f"{found.name}: {found.path} ({'there' if there else 'not there'})")
        if publication is not None:
            print(f"  {publication.what}\n  from {publication.home}\n  licence: {publication.licence}")
        for item in items:
            known = f"SHA-256 {item.file.sha256}" if item.file.sha256 else "SHA-256 not known to us"
            print(f"  {item.path}: {_size(item.file.bytes)}, {known}")


def _print(items: list[Item]) -> None:
    missing = [item for item in items if not item.path.exists()]
    if missing:
        print("Copy these from a machine with a network, then `selftrans fetch` here checks them:")
    for item in missing:
        known = f", SHA-256 {item.file.sha256}" if item.file.sha256 else ""
        print(f"{item.file.address}\n  to {item.path.absolute()} ({_size(item.file.bytes)}{known})")


def _tell_of_the_rest(plan: Plan, needed: list[Outside], publications: dict[str, Publication]) -> None:
    """What cannot be downloaded and is not there."""
    for found in needed:
        publication = publications.get(found.name)
        if (publication and publication.files) or found.path.exists():
            continue
        where = f"{found.key}: {found.path} is not there"
        if publication is None:
            print(f"{where}: put {found.name} there yourself, or name the place where it is")
        else:
            print(f"{where}: {publication.what}\n  from {publication.home}\n  licence: {publication.licence}")


def _size(size: int | None) -> str:
    return "size not known to us" if size is None else f"{size / 1e6:,.1f} MB"


# ------------------------------------------------------------------------------------------- what is done


def _fetch(items: list[Item]) -> None:
    """Check what is there before anything is downloaded."""
    missing = [item for item in items if not _is_there(item)]
    for item in missing:
        with held(item.path.parent, str(item.path.parent)) as lease:
            if not _is_there(item):
                _download(item, lease)
    print(f"{len(items) - len(missing)} files were there, {len(missing)} came")


def _is_there(item: Item) -> bool:
    """Whether the file is there. Raises UserError if it is, but is another one."""
    require_replaceable(item.path)
    if not item.path.exists():
        return False
    sha256 = file_sha256(item.path)
    if difference := item.difference(sha256):
        raise UserError(f"{difference}; move the file away, and give the same command again")
    _write_down(item, sha256)
    return True


def _write_down(item: Item, sha256: str) -> None:
    if not item.record.exists():
        write_text(item.record, f"{sha256}  {item.path.name}\n")


def _download(item: Item, lease: Lease) -> None:
    """Bring a file under its name, whole and checked; what is half there is gone on with."""
    for path in (item.part, item.version):
        require_replaceable(path)
    begun = item.part.stat().st_size if item.part.exists() else 0
    if begun == 0 or begun != item.file.bytes:
        _receive(item, begun, lease)
    sha256 = file_sha256(item.part)
    lease.check()
    if (item.sha256 or sha256) != sha256:
        _drop(item)
        raise UserError(
            f"{item.file.address}: SHA-256 {sha256}, where {item.sha256} is expected: not the file that was published; "
            "it is deleted; try again, or bring the file from elsewhere"
        )
    _write_down(item, sha256)
    item.part.replace(item.path)
    item.version.unlink(missing_ok=True)


def _drop(item: Item) -> None:
    """Forget what is half there."""
    item.part.unlink(missing_ok=True)
    item.version.unlink(missing_ok=True)


def _receive(item: Item, begun: int, lease: Lease) -> None:
    """Add to the part what the server has after its first ``begun`` bytes, or all if it does not go on with them."""
    response = _open(item, begun)
    if response is None:
        return
    with response:
        begun = begun if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        if begun == 0 and (version := response.headers.get("ETag")):
            write_text(item.version, version)
        length = response.headers.get("Content-Length")
        total = item.file.bytes or (begun + int(length) if length else None)
        with (
            item.part.open("ab" if begun else "wb") as file,
            progress_bar(total or 0, item.path.name, "B", initial=begun) as bar,
        ):
            for block in _blocks(item, response):
                lease.check()
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    size = item.part.stat().st_size
    if total is not None and size < total:
        raise UserError(f"{item.file.address}: ended after {size} of {total} bytes; the same command goes on")
    if total is not None and size > total:
        _drop(item)
        raise UserError(f"{item.file.address}: more than the {total} bytes of the published file; it is deleted")


def _open(item: Item, begun: int) -> http.client.HTTPResponse | None:
    """The server's answer; None if the part is already whole."""
    headers = {"User-Agent": f"selftrans/{__version__}"}
    if begun and item.version.exists():
        require_regular(item.version)
        headers |= {"Range": f"bytes={begun}-", "If-Range": item.version.read_text(encoding="utf-8")}
    elif begun and item.file.sha256:  # another file's bytes would be found out
        headers |= {"Range": f"bytes={begun}-"}
    try:
        return urllib.request.urlopen(urllib.request.Request(item.file.address, headers=headers), timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise UserError(f"{item.file.address}: the server says {error.code} {error.reason}") from error
        if error.headers.get("Content-Range") == f"bytes */{begun}":
            return None
        _drop(item)
        raise UserError(f"{item.file.address}: shorter than what was begun; give the same command again") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _no_network(item, error) from error


def _blocks(item: Item, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while block := response.read(BLOCK):
            yield block
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _no_network(item, error) from error


def _no_network(item: Item, error: Exception) -> UserError:
    reason = getattr(error, "reason", error)
    return UserError(
        f"{item.file.address}: {reason}; the same command goes on; on a machine without a network, `selftrans fetch "
        "--print` says what to copy where"
    )
