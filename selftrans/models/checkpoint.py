"""Weights, which people keep, and state, which a killed run goes on from.

Weights are a safetensors file of the backbone alone, with everything about it in the header. State is all
that the next step depends on; it lies in the run's working folder and carries the run's recipe.
"""

from collections.abc import Mapping
from os.path import lexists
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from selftrans.artifacts import load_tensors, save_tensors, tensors_header
from selftrans.errors import UserError
from selftrans.models.backbones import build_backbone
from selftrans.models.backbones.backbone import Backbone
from selftrans.models.layout import laid_out
from selftrans.models.strict import load_strictly, require_fit
from selftrans.plan.runs import Run
from selftrans.provenance import provenance

ANEW = "delete it and run the same command again, which starts this run anew"


def weights_header(run: Run, step: int, kind: str) -> dict[str, Any]:
    """What a weights file says of itself; ``kind`` is "ema" or "online"."""
    return {
        **weights_of(run, step, kind),
        "backbone": run.backbone,
        "row": run.row.model_dump(mode="json"),
        "recipe": run.recipe,
        "provenance": provenance(),
    }


def save_weights(path: Path, backbone: Backbone, run: Run, step: int, kind: str, made_of: Mapping[str, str]) -> None:
    """Write the weights of a run at a milestone; ``made_of`` are the hashes of what it learned from."""
    save_tensors(path, "weights", backbone.state_dict(), {**weights_header(run, step, kind), "made_of": dict(made_of)})


def load_backbone(
    path: Path, expected: Mapping[str, Any] | None = None, blocks: int | None = None
) -> tuple[Backbone, dict[str, Any]]:
    """(backbone, header) of a weights file; with ``blocks``, only that many blocks and no head.

    Raises UserError if the file is missing, damaged, no weights file, not those that are ``expected``, or if its
    tensors are not those of the whole backbone.
    """
    tensors, header = load_tensors(path, "weights", expected)
    with laid_out():
        backbone = build_backbone(**header["backbone"])
        require_fit(backbone, tensors, path)
        if blocks is not None:
            backbone = build_backbone(**header["backbone"], blocks=blocks)
    load_strictly(backbone, {name: tensors[name] for name in backbone.state_dict()}, path, assign=True)
    return backbone, header


def weights_of(run: Run, step: int, kind: str = "ema") -> dict[str, Any]:
    """What the weights of a run at a milestone say of themselves."""
    return {"run": run.id, "step": step, "seed": run.seed, "weights": kind}


def save_state(path: Path, run: Run, step: int, parts: Mapping[str, Any], made_of: Mapping[str, str]) -> None:
    """Write the training state atomically; ``parts`` are state dicts of tensors and plain values."""
    tensors: dict[str, Tensor] = {}
    plain = _without_tensors(parts, "", tensors)
    about = {"run": run.id, "step": step, "seed": run.seed, "recipe": run.recipe, "made_of": dict(made_of)}
    save_tensors(path, "state", tensors, {**about, "plain": plain})


class State(NamedTuple):
    """What a run goes on from."""

    step: int
    parts: dict[str, Any]
    made_of: dict[str, str]


def load_state(path: Path, run: Run, made_of: Mapping[str, str]) -> State | None:
    """The state of ``run``, or None if it has none yet.

    Raises UserError if the file is damaged, belongs to another recipe, or learned from other files than there are
    now, whose hashes are ``made_of``: such a state is never continued.
    """
    if not lexists(path):  # a link to nowhere is no state, but is not to be trained beside either
        return None
    tensors, header = load_tensors(path, "state", _expected(run), ANEW)
    for what in made_of.keys() & header["made_of"].keys():
        if made_of[what] != header["made_of"][what]:
            found, now = header["made_of"][what][:12], made_of[what][:12]
            raise UserError(f"{path}: its {what} had the SHA-256 {found}, but there is another one now, {now}; {ANEW}")
    return State(header["step"], _with_tensors(header["plain"], tensors), header["made_of"])


def state_identity(path: Path, run: Run) -> str:
    """What tells the state in ``path`` from others; "none" if there is none yet.

    Raises UserError if the file is damaged or belongs to another recipe.
    """
    if not lexists(path):
        return "none"
    header = tensors_header(path, "state", _expected(run), ANEW)
    return f"step {header['step']}, SHA-256 {header['sha256'][:12]}"


def step_to_go_on_from(path: Path, run: Run, until: int) -> int:
    """The step of the state in ``path``, or 0 if there is none or it is already past ``until``.

    Raises UserError if the file is damaged or belongs to another recipe.
    """
    if not lexists(path):
        return 0
    step = tensors_header(path, "state", _expected(run), ANEW)["step"]
    return 0 if step > until else step


def _expected(run: Run) -> dict[str, Any]:
    return {"run": run.id, "seed": run.seed, "recipe": run.recipe}


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` with each tensor moved to ``tensors`` and its name there left in its place; keys become pairs."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"mapping": [[key, _without_tensors(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_without_tensors(item, f"{name}/{place}", tensors) for place, item in enumerate(value)]}
    return {"plain": value}


def _with_tensors(value: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_without_tensors`, tuples as lists."""
    ((form, found),) = value.items()
    match form:
        case "tensor":
            return tensors[found]
        case "mapping":
            return {key: _with_tensors(item, tensors) for key, item in found}
        case "list":
            return [_with_tensors(item, tensors) for item in found]
    return found
