"""Files from outside: there or not, of the published size, with the published hash."""

import hashlib
from pathlib import Path

import pytest

from selftrans.config.publications import Publication, PublishedFile
from selftrans.doctor.outside import outside_files
from selftrans.plan.outside import Outside

CONTENT = b"weights" * 1000
HOME = "https://example.org/"


@pytest.fixture
def published(tmp_path):
    """(what is needed, publications): a file of known size and hash, a folder of two, images."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file = PublishedFile(name="judge.pth", address=f"{HOME}judge.pth", bytes=len(CONTENT), sha256=sha256)
    two = tuple(PublishedFile(name=name, address=HOME + name) for name in ("vae.safetensors", "config.json"))
    needed = [
        Outside("scale.yaml: extractor.weights", "judge", tmp_path / "judge.pth"),
        Outside("scale.yaml: tokenizer.weights", "vae", tmp_path / "vae"),
        Outside("scale.yaml: data.path", "images", tmp_path / "images"),
    ]
    about = {"what": "", "home": HOME, "licence": "MIT"}
    return needed, {
        "judge": Publication(**about, files=(file,)),
        "vae": Publication(**about, folder=True, files=two),
        "images": Publication(**about),
    }


def look(published, hashed=False):
    return list(outside_files(*published, "mine.yaml", hashed))


def bring(tmp_path: Path, content: bytes = CONTENT) -> None:
    (tmp_path / "judge.pth").write_bytes(content)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "vae.safetensors").write_bytes(b"vae")
    (tmp_path / "vae" / "config.json").write_bytes(b"{}")
    (tmp_path / "images").mkdir()


def test_what_is_not_there_is_said_with_where_it_is_to_be_had(published):
    found = look(published)
    assert [finding.level for finding in found] == ["wrong"] * 3
    assert "extractor.weights" in found[0].what
    assert found[0].advice == "`selftrans fetch mine.yaml` brings it"
    assert found[2].advice == f"it can be had at {HOME}"
    (unknown,) = outside_files(published[0][:1], {}, "mine.yaml", False)
    assert unknown.advice == "put it there, or name where it is"


def test_what_is_there_is_right_if_size_and_hash_are(published, tmp_path):
    bring(tmp_path)
    for hashed in (False, True):
        assert [finding.level for finding in look(published, hashed)] == ["ok"] * 3


def test_a_file_that_was_cut_off_is_wrong(published, tmp_path):
    bring(tmp_path, CONTENT[:-1])
    found = look(published)
    assert [finding.level for finding in found] == ["wrong", "ok", "ok"]
    assert f"{len(CONTENT) - 1} bytes, where {HOME}judge.pth has {len(CONTENT)}" in found[0].what


def test_another_file_of_that_size_is_told_by_its_hash(published, tmp_path):
    bring(tmp_path, b"W" + CONTENT[1:])
    assert [finding.level for finding in look(published)] == ["ok"] * 3
    found = look(published, hashed=True)
    assert [finding.level for finding in found] == ["wrong", "ok", "ok"]
    assert "SHA-256" in found[0].what


def test_a_file_beside_the_named_one_may_be_missing(published, tmp_path):
    bring(tmp_path)
    (tmp_path / "vae" / "config.json").unlink()
    found = look(published)
    assert [finding.level for finding in found] == ["ok", "warning", "ok"]
    assert "config.json" in found[1].what
