"""The order of the package, read from its imports; and what must not load torch, watched in a fresh process."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "selftrans"

# A room (or a file at the top) may import from those that stand before it: the way of the data. Commands see all.
ORDER = [
    *(
        "errors",
        "malloc",
        "seeding",
        "files",
        "leases",
        "artifacts",
        "formats",
        "provenance",
        "progress",
        "parallel",
        "beats",
        "gpus",
        "failures",
        "scheduler",
    ),
    *("config", "plan"),
    *("diffusion", "data", "models", "methods", "training", "sampling", "evaluation", "reporting"),
    *("doctor", "commands", "warm", "__main__"),
]

FOUNDATION = {"errors", "seeding", "files", "artifacts", "formats", "progress", "parallel", "config"}

# Rooms that none but commands see, and what they see themselves: rooms, or of a room the modules named. Evaluation
# knows published encoders, one of which is an extractor; probing, which reads features off models, is the one part of
# it that knows others.
WINGS = {
    "evaluation": {*FOUNDATION, "data.pictures", "data.pixels", "models.layout", "models.strict", "models.encoders"},
    "reporting": {*FOUNDATION, "beats", "failures", "gpus", "leases", "plan", "training.log"},
}
EXEMPT = {"selftrans.evaluation.probing"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """The package's modules that a file imports, also inside functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name.split(".")[0] == "selftrans"}


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def part(module: str) -> str:
    """The file or folder of the package that a module belongs to; "" for the package itself."""
    return (*module.split("."), "")[1]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"selftrans"}))
def test_a_module_imports_only_from_before_its_own_place(module):
    own = part(module)
    assert own in ORDER, f"{module}: give it a place in the order"
    before = {"", own, *ORDER[: ORDER.index(own)]}
    assert {part(name) for name in IMPORTS[module]} <= before


def test_the_order_names_nothing_that_is_not_there():
    assert set(ORDER) == {part(name) for name in MODULES} - {""}


def test_no_module_imports_itself_by_a_detour():
    """Also inside a folder, where the order above says nothing."""
    assert list(TopologicalSorter(IMPORTS).static_order())


@pytest.mark.parametrize("wing", WINGS)
def test_side_wings_see_the_foundation_and_only_commands_see_them(wing):
    for module, imported in IMPORTS.items():
        if part(module) == wing and module not in EXEMPT:
            seen = {name for name in imported if part(name) not in ("", wing)}
            assert {name for name in seen if not {part(name), name.removeprefix("selftrans.")} & WINGS[wing]} == set()
        elif part(module) not in ("commands", wing):
            assert wing not in {part(name) for name in imported}


def test_the_plan_the_verbs_and_the_tables_load_no_torch():
    """The Snakefile is parsed for every job, and importing torch costs two seconds."""
    code = """
import sys
import selftrans.plan.plan, selftrans.commands, selftrans.reporting.tables
from selftrans.commands import main
main(["plan"])
print(sorted({"torch", "diffusers", "timm", "scipy", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
