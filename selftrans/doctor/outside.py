"""Whether the files that other people made are there, and are the published ones."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from selftrans.config.publications import Publication
from selftrans.doctor.finding import Finding, ok, warning, wrong
from selftrans.files import file_sha256
from selftrans.plan.outside import Outside
from selftrans.plan.published import Item, items_of
from selftrans.progress import progress_bar


def outside_files(
    needed: Iterable[Outside], publications: Mapping[str, Publication], scale: Path | str, hashed: bool
) -> Iterator[Finding]:
    """Presence and size of each file that is ``needed``, and if asked its hash, for which all of it is read."""
    fetch = f"`selftrans fetch {scale}`"
    for found in needed:
        items, what = list(items_of(found, dict(publications))), f"{found.path} ({found.name})"
        if not found.path.exists():
            publication = publications.get(found.name)
            place = f"it can be had at {publication.home}" if publication else "put it there, or name where it is"
            advice = f"{fetch} brings it" if items else place
            yield wrong(f"{found.key}: {what} is not there", advice)
            continue
        absent = [item.path.name for item in items if not item.path.exists()]
        if absent:
            yield warning(f"{what} is without {', '.join(absent)}", f"{fetch} brings what is published")
        differing = [text for item in items if item.path.exists() and (text := difference(item, hashed))]
        for text in differing:
            yield wrong(text, f"move the file away; {fetch} brings the published one")
        if not absent and not differing:
            yield ok(f"{what} is there" + (", with the published hash" if items and hashed else ""))


def difference(item: Item, hashed: bool) -> str | None:
    """How a file that is there differs from the published one; None if nohow, as far as was looked."""
    size = item.path.stat().st_size
    if item.file.bytes not in (None, size):
        return f"{item.path}: {size} bytes, where {item.file.address} has {item.file.bytes}"
    if not hashed:
        return None
    with progress_bar(size, item.path.name, "B") as bar:
        return item.difference(file_sha256(item.path, bar.update))
