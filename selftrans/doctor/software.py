"""Python and the libraries, from what their installation says of itself: none of them is imported."""

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from selftrans.doctor.finding import Finding, ok, warning, wrong

NAMED = 5  # libraries that a line names
SET_UP = "`make setup`, or `pip install -r requirements.lock` in an environment of your own"


def software(repository: Path) -> Iterator[Finding]:
    """Python, libraries and the installation of this repository, as its pyproject.toml and requirements.lock say."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {canonicalize_name(found.name): found.version for found in distributions()}
    yield python(".".join(map(str, sys.version_info[:3])), project["requires-python"])
    yield from libraries(project["dependencies"], installed)
    yield from pins((repository / "requirements.lock").read_text(encoding="utf-8"), installed)
    yield from installation(repository)


def python(version: str, allowed: str) -> Finding:
    """Whether this Python is one that the project is for."""
    if SpecifierSet(allowed).contains(version):
        return ok(f"Python {version}")
    return wrong(f"Python {version}, where {allowed} is asked for", "make setup PYTHON=python3.11")


def libraries(requirements: list[str], installed: Mapping[str, str]) -> Iterator[Finding]:
    """Each library that is missing or outside of its range."""
    needed = [found for found in map(Requirement, requirements) if found.marker is None or found.marker.evaluate()]
    fitting = 0
    for requirement in needed:
        version = installed.get(canonicalize_name(requirement.name))
        if version is None:
            yield wrong(f"{requirement.name} is not installed ({requirement} is asked for)", SET_UP)
        elif not requirement.specifier.contains(version, prereleases=True):
            yield wrong(f"{requirement.name} {version}, where {requirement.specifier} is asked for", SET_UP)
        else:
            fitting += 1
    if fitting == len(needed):
        yield ok(f"{fitting} libraries, all within the ranges of pyproject.toml")


def pins(lock: str, installed: Mapping[str, str]) -> Iterator[Finding]:
    """What is installed in another version than the one that everything was tried with.

    A build for another device (2.11.0+cpu) is the same version.
    """
    others, count = [], 0
    for line in lock.splitlines():
        if not line[:1].isalnum():  # the hashes of the pin above
            continue
        pin = Requirement(line.removesuffix("\\").strip())
        version = installed.get(canonicalize_name(pin.name))
        if version is None or (pin.marker is not None and not pin.marker.evaluate()):
            continue
        count += 1
        if not pin.specifier.contains(Version(version).public):
            others.append(f"{pin.name} {version} ({str(pin.specifier).removeprefix('==')})")
    if others:
        shown = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
        yield warning(f"other versions than requirements.lock pins: {shown}", f"for the same ones: {SET_UP}")
    else:
        yield ok(f"{count} libraries at the versions of requirements.lock")


def installation(repository: Path, path: Sequence[str] | None = None) -> Iterator[Finding]:
    """Whether `selftrans` is this repository, also where it is called from elsewhere.

    ``path`` is searched instead of Python's own. What building left in the repository is no installation.
    """
    how = f"pip install --no-deps -e {repository}"
    places = [place for place in (sys.path if path is None else path) if Path(place).resolve() != repository.resolve()]
    found = next(iter(distributions(name="selftrans", path=places)), None)
    if found is None:
        yield warning("selftrans is not installed: `python -m selftrans` works in this folder alone", how)
        return
    said = found.read_text("direct_url.json")
    about = json.loads(said) if said else {}
    if not about.get("dir_info", {}).get("editable"):
        yield warning("selftrans is installed as a copy, which an edit here does not change", how)
        return
    source = Path(unquote(urlparse(about["url"]).path))
    if source.resolve() == repository.resolve():
        yield ok(f"selftrans is {source}")
    else:
        yield warning(f"the command `selftrans` is that of {source}, and this is {repository}", how)
