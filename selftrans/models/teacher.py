"""The frozen teacher of stage 2: a run's weights at a milestone, cut off after the guiding layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrans.artifacts import load_tensors, save_tensors
from selftrans.diffusion.guidance import guide
from selftrans.models.backbones import build_backbone
from selftrans.models.backbones.backbone import Backbone
from selftrans.models.checkpoint import load_backbone
from selftrans.models.frozen import Frozen
from selftrans.models.layout import laid_out
from selftrans.models.strict import load_strictly


def freeze_teacher(weights: Path, layer: int, path: Path, expected: Mapping[str, Any] | None = None) -> str:
    """Keep what features after block ``layer`` need of a weights file, and nothing else; read-only.

    Returns the SHA-256 of the kept tensors. The header names the run, step, seed and kind of weights, the layer,
    what the run learned from, and the SHA-256 of the weights that the teacher was cut from. Raises UserError if the
    weights are not those that are ``expected``.
    """
    backbone, header = load_backbone(weights, expected, blocks=layer)
    identity = {key: header[key] for key in ("run", "step", "seed", "weights", "backbone", "made_of")}
    sha256 = save_tensors(
        path, "teacher", backbone.state_dict(), identity | {"layer": layer, "cut_from": header["sha256"]}
    )
    path.chmod(0o444)
    return sha256


class FrozenTeacher(Frozen):
    """Features of a teacher file."""

    def __init__(self, backbone: Backbone, layer: int, header: dict[str, Any]) -> None:
        super().__init__(backbone)
        self.backbone = backbone
        self.layer = layer
        self.header = header

    @classmethod
    def load(cls, path: Path, expected: dict[str, Any], device: torch.device | str = "cpu") -> "FrozenTeacher":
        """Read a teacher and compare it with the reference that named it.

        ``expected`` holds run, step, seed, weights, layer and backbone (its sizes), all as the file should say.
        Raises UserError if the file is damaged, or is another teacher than the reference names.
        """
        tensors, header = load_tensors(path, "teacher", expected)
        with laid_out():
            backbone = build_backbone(**header["backbone"], blocks=header["layer"])
        load_strictly(backbone, tensors, path, assign=True)
        return cls(backbone.to(device), header["layer"], header)

    def features(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The residual stream (N, T, D) after the guiding layer; later blocks are not there to run."""
        with self.forward_pass(x_t.device):
            return self.backbone.features(x_t, t, labels, (self.layer,))[self.layer]

    def guided_features(self, x_t: Tensor, t: Tensor, labels: Tensor, scale: float) -> Tensor:
        """Eq. (3): f_g = f_u + ω (f_c - f_u), both from one forward pass of a doubled batch."""
        null = torch.full_like(labels, self.backbone.null_label)
        features = self.features(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([labels, null]))
        return guide(*features.chunk(2), scale)
