"""Python and libraries: the real environment, and such as it is not."""

import sys
from pathlib import Path

import pytest

from selftrans.doctor.software import installation, libraries, pins, python, software

ROOT = Path(__file__).parents[2]
LOCK = """numpy==2.1.0 ; sys_platform == 'linux' or sys_platform == 'darwin' \\
    --hash=sha256:00
only-elsewhere==1.0 ; sys_platform == 'win32' \\
    --hash=sha256:00
PyYAML==6.0.1 \\
    --hash=sha256:00
"""


def said(findings):
    return [(finding.level, finding.what) for finding in findings]


def test_the_environment_of_the_tests_is_in_order():
    levels = {finding.what: finding.level for finding in software(ROOT)}
    assert "wrong" not in levels.values()
    assert levels[f"Python {'.'.join(map(str, sys.version_info[:3]))}"] == "ok"


@pytest.mark.parametrize(
    ("version", "level"), [("3.10.12", "wrong"), ("3.11.0", "ok"), ("3.13.9", "ok"), ("3.14.0", "wrong")]
)
def test_python_is_one_of_those_that_are_meant(version, level):
    assert python(version, ">=3.11,<3.14").level == level


def test_libraries_are_there_and_in_their_ranges():
    asked = ["numpy>=2.0", "PyYAML>=6", "torch>=2.11,<3", "winreg-only>=1; sys_platform == 'win32'"]
    assert said(libraries(asked, {"numpy": "2.1.0", "pyyaml": "6.0", "torch": "2.12.0+cpu"})) == [
        ("ok", "3 libraries, all within the ranges of pyproject.toml")
    ]
    assert said(libraries(asked, {"numpy": "1.26.0", "torch": "3.0.1"})) == [
        ("wrong", "numpy 1.26.0, where >=2.0 is asked for"),
        ("wrong", "PyYAML is not installed (PyYAML>=6 is asked for)"),
        ("wrong", "torch 3.0.1, where <3,>=2.11 is asked for"),
    ]


def test_an_older_executor_plugin_starts_scripts_twice_and_is_wrong():
    (found,) = libraries(["snakemake-executor-plugin-slurm>=2.7.1,<3"], {"snakemake-executor-plugin-slurm": "2.6.0"})
    assert (found.level, "make setup" in found.advice) == ("wrong", True)


def test_other_versions_than_pinned_are_named():
    assert said(pins(LOCK, {"numpy": "2.1.0", "pyyaml": "6.0.1", "only-elsewhere": "9"})) == [
        ("ok", "2 libraries at the versions of requirements.lock")
    ]
    assert said(pins(LOCK, {"numpy": "2.1.0+local", "pyyaml": "6.0.3"})) == [
        ("warning", "other versions than requirements.lock pins: PyYAML 6.0.3 (6.0.1)")
    ]
    lock = "".join(f"library{number}==1.0 \\\n    --hash=sha256:00\n" for number in range(8))
    (found,) = pins(lock, {f"library{number}": "2.0" for number in range(8)})
    assert found.what.endswith("library4 2.0 (1.0) and 3 more")


def installed(folder: Path, direct_url: str | None) -> str:
    """A folder with what an installer writes down of selftrans; returns its path as in sys.path."""
    about = folder / "selftrans-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: selftrans\nVersion: 0.1.0\n")
    if direct_url is not None:
        (about / "direct_url.json").write_text(direct_url)
    return str(folder)


def test_the_installation_is_of_this_repository_or_of_another(tmp_path):
    editable = '{{"url": "file://{}", "dir_info": {{"editable": true}}}}'
    here = tmp_path / "a repository"
    here.mkdir()
    site = installed(tmp_path / "right", editable.format(str(here).replace(" ", "%20")))
    assert said(installation(here, [site])) == [("ok", f"selftrans is {here}")]
    (found,) = installation(here, [installed(tmp_path / "other", editable.format(tmp_path))])
    assert (found.level, str(tmp_path) in found.what, str(here) in found.advice) == ("warning", True, True)
    for name, text in (("copy", None), ("wheel", '{"url": "file:///somewhere", "archive_info": {}}')):
        (found,) = installation(here, [installed(tmp_path / name, text)])
        assert (found.level, "as a copy" in found.what) == ("warning", True)
    (found,) = installation(here, [str(tmp_path)])
    assert "is not installed" in found.what


def test_what_building_left_in_the_repository_is_no_installation(tmp_path):
    """It stands before the installation where Python is called in the repository."""
    here = tmp_path / "repository"
    (here / "selftrans.egg-info").mkdir(parents=True)
    (here / "selftrans.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: selftrans\nVersion: 0.1.0\n")
    site = installed(tmp_path / "site", f'{{"url": "file://{here}", "dir_info": {{"editable": true}}}}')
    assert [level for level, _ in said(installation(here, [str(here), site]))] == ["ok"]
