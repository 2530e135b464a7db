"""Files that other people published, and where a scale wants them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selftrans.config.publications import Publication, PublishedFile
from selftrans.files import require_regular
from selftrans.plan.outside import Outside


@dataclass(frozen=True)
class Item:
    """A file that is wanted, and where."""

    publication: Publication
    file: PublishedFile
    path: Path

    @property
    def part(self) -> Path:
        """The beginning of the file, while it is downloaded."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def version(self) -> Path:
        """Which file the part is of, as its server says (its ETag)."""
        return self.path.with_name(f"{self.path.name}.part.etag")

    @property
    def record(self) -> Path:
        """What says which file came, in the form of `sha256sum`."""
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def sha256(self) -> str | None:
        """That of the published file, or of the one that came first; None if neither is known."""
        if self.file.sha256 is None and self.record.exists():
            require_regular(self.record)
            return self.record.read_text(encoding="utf-8")[:64]
        return self.file.sha256

    def difference(self, sha256: str) -> str | None:
        """How the file that is there, which has this hash, differs from the one that was published; None if nohow."""
        size = self.path.stat().st_size
        if (self.file.bytes or size) == size and (self.sha256 or sha256) == sha256:
            return None
        known = f"{self.sha256 or 'not known'}, {self.file.bytes or 'an unknown number of'} bytes"
        return f"{self.path}: SHA-256 {sha256}, {size} bytes, where {self.file.address} has {known}"


def items_of(found: Outside, publications: dict[str, Publication]) -> Iterator[Item]:
    """The files behind a path of the scale: one and what lies beside it, or a folder of them."""
    publication = publications.get(found.name)
    for number, file in enumerate(publication.files if publication else ()):
        if publication.folder:
            yield Item(publication, file, found.path / file.name)
        else:
            yield Item(publication, file, found.path if number == 0 else found.path.with_name(file.name))
