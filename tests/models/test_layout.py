import subprocess
import sys

import pytest
import torch
from torch import nn

from selftrans.models.backbones import build_backbone
from selftrans.models.layout import laid_out

SIZES = {"depth": 2, "width": 16, "heads": 2, "patch_size": 2, "input_size": 8, "channels": 4, "num_classes": 10}


@pytest.mark.parametrize("kind", ["sit", "lightningdit"])
def test_shapes_and_constants_are_there_and_nothing_else(kind):
    real = build_backbone(backbone=kind, **SIZES)
    with laid_out():
        found = build_backbone(backbone=kind, **SIZES)
    assert {name: one.shape for name, one in found.named_parameters()} == {
        name: one.shape for name, one in real.named_parameters()
    }
    constants = {name for name, one in found.named_parameters() if not one.is_meta}
    assert constants == {"pos_embed"}
    assert all(found.get_buffer(name).equal(one) for name, one in real.named_buffers())


def test_whatever_draws_is_left_out():
    with laid_out():
        for module in (nn.Linear(2, 3), nn.Embedding(4, 2), nn.Conv2d(1, 2, 3), nn.MultiheadAttention(4, 2)):
            assert all(one.is_meta for one in module.parameters())
    assert nn.Linear(2, 3).weight.device.type == "cpu"


def test_the_compiler_is_not_loaded():
    script = f"""
import sys
from selftrans.models.backbones import build_backbone
from selftrans.models.layout import laid_out
with laid_out():
    for kind in ("sit", "lightningdit"):
        build_backbone(backbone=kind, **{SIZES})
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_is_over_with_the_block():
    with laid_out():
        pass
    weight = torch.empty(3)
    assert nn.init.ones_(weight).tolist() == [1, 1, 1]
