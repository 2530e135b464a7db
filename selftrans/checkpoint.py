"""Weights, which people keep, and state, which a killed run goes on from.

Weights are a safetensors file of the backbone alone, with everything about it in the header. State is all
that the next step depends on; it lies in the run's working folder and carries the run's recipe.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

from selftrans.backbones import build_backbone
from selftrans.backbones.backbone import Backbone
from selftrans.errors import UserError
from selftrans.files import atomic_path, load_tensors, save_tensors
from selftrans.provenance import provenance
from selftrans.runs import Run


def weights_header(run: Run, step: int, kind: str) -> dict[str, Any]:
    """What a weights file says of itself; ``kind`` is "ema" or "online"."""
    return {
        "kind": "weights",
        "weights": kind,
        "run": run.id,
        "step": step,
        "seed": run.seed,
        "backbone": run.backbone,
        "row": run.row.model_dump(mode="json"),
        "recipe": run.recipe,
        "provenance": provenance(),
    }


def save_weights(path: Path, backbone: Backbone, run: Run, step: int, kind: str) -> None:
    """Write the weights of a run at a milestone."""
    save_tensors(path, backbone.state_dict(), weights_header(run, step, kind))


def load_backbone(path: Path, blocks: int | None = None) -> tuple[Backbone, dict[str, Any]]:
    """(backbone, header) of a weights file; with ``blocks``, only that many blocks and no head.

    Raises UserError if the file is missing, damaged, or no weights file.
    """
    tensors, header = load_tensors(path)
    if header.get("kind") != "weights":
        raise UserError(f"{path}: holds {header.get('kind', 'something else')!r}, not weights")
    backbone = build_backbone(**header["backbone"], blocks=blocks)
    wanted = backbone.state_dict().keys()
    backbone.load_state_dict({name: tensors[name] for name in wanted})
    return backbone, header


def save_state(path: Path, run: Run, step: int, parts: dict[str, Any]) -> None:
    """Write the training state atomically; ``parts`` are state dicts of tensors and plain values."""
    with atomic_path(path) as part:
        torch.save({"run": run.id, "recipe": run.recipe, "step": step, **parts}, part)


def load_state(path: Path, run: Run, lazily: bool = False) -> dict[str, Any] | None:
    """The state of ``run``, or None if it has none yet; ``lazily``, tensors are read only when they are looked at.

    Raises UserError if the file is damaged or belongs to another recipe: such a state is never continued.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, mmap=lazily)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: truncated or damaged ({error}); delete it and run the same command again, "
            "which starts this run anew"
        ) from error
    if state["recipe"] != run.recipe:
        raise UserError(f"{path}: the state of another recipe ({state['run']}), not of {run.id}; delete it")
    return state


def step_to_go_on_from(path: Path, run: Run, until: int) -> int:
    """The step of the state in ``path``, or 0 if there is none or it is already past ``until``.

    Raises UserError as `load_state` does.
    """
    state = load_state(path, run, lazily=True)
    return 0 if state is None or state["step"] > until else state["step"]
