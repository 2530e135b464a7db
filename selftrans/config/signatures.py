"""The settings of a method, read from its file's syntax tree: the signature is the schema.

``selftrans/methods/<name>.py`` holds one class derived from ``Method``. The keyword-only arguments of
its ``__init__`` are what a row of ``config/runs.yaml`` may set. The files are parsed, not imported, so the
Snakefile knows every method without loading torch, and a new method is one file and one row.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from selftrans.config.records import Record
from selftrans.errors import UserError

METHODS_FOLDER = Path(__file__).parents[1] / "methods"

# Numbers by what they count or measure, each with a bound that no experiment comes near: what lies beyond is a slip.
Count = Annotated[int, Field(gt=0, le=10**9)]  # of steps, samples
Size = Annotated[int, Field(gt=0, le=100_000)]  # of what is built: pixels, channels, blocks, threads
Epoch = Annotated[int, Field(gt=0, le=10**6)]
Seed = Annotated[int, Field(ge=0, le=10**9)]
Integer = Annotated[int, Field(ge=-(10**9), le=10**9)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1e3)]  # of learning
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]  # what an average keeps of itself; with 1 it would never move


def _in_order(window: tuple[float, float]) -> tuple[float, float]:
    if window[0] >= window[1]:
        raise ValueError("two times, the earlier first, such as [0.4, 0.7]")
    return window


def _form_of_layer(layer: Any) -> int | str:
    counted = isinstance(layer, int) and not isinstance(layer, bool) and layer > 0
    if not counted and not (isinstance(layer, str) and re.fullmatch(FRACTION_OF_DEPTH, layer)):
        raise ValueError("a block counted from 1, or a fraction of the depth such as n/2")
    return layer


FRACTION_OF_DEPTH = r"([0-9]{0,3})n/([1-9][0-9]{0,2})"

# A block counted from 1. A row may also say a fraction of the depth, "2n/3"; a method gets the number.
Layer = Annotated[Any, AfterValidator(_form_of_layer), "layer"]
# A row says the paper's epochs; a method gets optimiser steps. It has no default, which would be ambiguous.
Epochs = Annotated[int, Field(gt=0, le=10**6), "epochs"]
# From when to when, with t = 0 for data.
Window = Annotated[tuple[Fraction, Fraction], AfterValidator(_in_order)]

# The types that a method's signature may use.
_VOCABULARY = {
    "bool": bool,
    "int": Integer,
    "float": Number,
    "str": str,
    "tuple": tuple,
    "Literal": Literal,
    "Layer": Layer,
    "Epochs": Epochs,
    "Window": Window,
    "Count": Count,
    "Positive": Positive,
    "NonNegative": NonNegative,
    "Fraction": Fraction,
}


@dataclass(frozen=True)
class Signature:
    """What the configuration knows of a method: its settings as (type, default) and what it needs."""

    name: str
    settings: dict[str, tuple[Any, Any]]  # default is ... where the row must say it
    needs_teacher: bool
    needs_images: bool

    @cached_property
    def record(self) -> type[Record]:
        """What checks the settings of a row."""
        return create_model(self.name, __base__=Record, **self.settings)


@cache
def method_names() -> list[str]:
    """Every method that a row may name, in alphabetical order."""
    return sorted(path.stem for path in METHODS_FOLDER.glob("*.py") if _method_class(path) is not None)


@cache
def signature(name: str) -> Signature:
    """Read the signature of method ``name``. Raises UserError if there is no such method."""
    path = METHODS_FOLDER / f"{name}.py"
    node = _method_class(path) if path.exists() else None
    if node is None:
        raise UserError(f"no method is called {name!r}; allowed: {', '.join(method_names())}")
    flags = {
        target.id: ast.literal_eval(item.value)
        for item in node.body
        if isinstance(item, ast.Assign)
        for target in item.targets
        if isinstance(target, ast.Name) and target.id in ("needs_teacher", "needs_images")
    }
    return Signature(
        name,
        _keyword_arguments(path, node),
        needs_teacher=flags.get("needs_teacher", False),
        needs_images=flags.get("needs_images", False),
    )


def _method_class(path: Path) -> ast.ClassDef | None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id == "Method" for base in node.bases
        ):
            return node
    return None


def _keyword_arguments(path: Path, node: ast.ClassDef) -> dict[str, tuple[Any, Any]]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            arguments = zip(item.args.kwonlyargs, item.args.kw_defaults, strict=True)
            return {argument.arg: _setting(path, argument, default) for argument, default in arguments}
    return {}


def _setting(path: Path, argument: ast.arg, default: ast.expr | None) -> tuple[Any, Any]:
    """(type, default) of a keyword-only argument."""
    if argument.annotation is None:
        raise UserError(f"{path}: {argument.arg}: no type; allowed: {', '.join(_VOCABULARY)}")
    annotation = ast.unparse(argument.annotation)
    try:
        kind = eval(annotation, {"__builtins__": {}}, _VOCABULARY)
    except NameError as error:
        allowed = f"types made of {', '.join(_VOCABULARY)}"
        raise UserError(f"{path}: {argument.arg}: found {annotation}; allowed: {allowed}") from error
    return kind, ... if default is None else ast.literal_eval(default)
