"""What other people published: files, where they are to be had, and how they are known."""

from typing import Annotated

from pydantic import Field

from selftrans.config.records import Record

Address = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=1000)]


class PublishedFile(Record):
    """A file: its name, its address, and where these are known, its size and its SHA-256."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
    address: Address
    bytes: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Publication(Record):
    """Files that belong together. Without any, what they are can be had only by agreeing to something at ``home``."""

    what: str
    home: Address
    licence: str
    folder: bool = False  # whether a scale names the folder that the files lie in, instead of the first of them
    files: tuple[PublishedFile, ...] = ()
    images_per_class: Annotated[int, Field(gt=0)] | None = None  # of a data set, on average
