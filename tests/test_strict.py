"""A module takes exactly its own tensors."""

import pytest
import torch
from torch import nn

from selftrans.errors import UserError
from selftrans.strict import load_strictly


class Gap(nn.Module):
    """A layer, and None in the place of another."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(2, 3), None])


def tensors_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_what_is_loaded_is_what_was_read(tmp_path):
    theirs, ours = Gap(), Gap()
    load_strictly(ours, tensors_of(theirs), tmp_path / "file")
    assert torch.equal(ours.parts[0].weight, theirs.parts[0].weight)


def test_what_a_gap_swallows_is_too_many(tmp_path):
    tensors = tensors_of(Gap()) | {"parts.1.weight": torch.ones(2)}
    Gap().load_state_dict(tensors)  # torch sees nothing amiss
    with pytest.raises(UserError) as refusal:
        load_strictly(Gap(), tensors, tmp_path / "file", wrong="not a gap", remedy="mind it")
    assert str(refusal.value) == f"{tmp_path / 'file'}: not a gap: 1 too many (parts.1.weight); mind it"


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    wide = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    tensors = {f"{name}.x": tensor for name, tensor in tensors_of(wide).items()}
    tensors |= {"0.weight": torch.ones(3), "0.bias": torch.ones(2, dtype=torch.int64)}
    before = tensors_of(wide)
    with pytest.raises(UserError) as refusal:
        load_strictly(wide, tensors, tmp_path / "file")
    assert (
        "4 missing (1.weight, 1.bias, 2.weight, …), 6 too many (0.weight.x, 0.bias.x, 1.weight.x, …), 2 of another "
        "shape or type (0.weight is (3,) float32 instead of (2, 2) float32, 0.bias is (2,) int64 instead of (2,) "
        "float32); " in str(refusal.value)
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in wide.state_dict().items())
