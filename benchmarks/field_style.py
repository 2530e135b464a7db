"""A baseline in the style of the field, written from its description: what trainings of SiT commonly do, step by step.

An eager SiT of timm's attention, MLP and patch embedding; float16 autocast with a gradient scaler on a GPU (float32 on
a CPU); AdamW as torch makes it by default; the moving average in a Python loop over named parameters; a file of
moments per image, read by a DataLoader; the loss fetched in every step. Where a frozen model guides, its features are
those of two forward passes of the whole model, with and without labels, caught by hooks.

Parameters have the names of the published checkpoints, as ours have, and times and velocities our directions, so that
both sides can be shown to compute the same (tests/benchmarks/test_field_style.py).
"""

import copy
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import Mlp, PatchEmbed
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from selftrans.methods.projector import projector
from selftrans.plan.runs import Run

WORKERS = 4  # that read for a GPU; beside one CPU thread there is no room for them


class FieldTimestepEmbedder(nn.Module):
    """Sines and cosines of t, made anew in each pass, through an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128).to(t.device)
        angles = t[:, None].float() * frequencies[None]
        return self.mlp(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))


class FieldLabelEmbedder(nn.Module):
    """A table with one row more than there are classes, for no label."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (N, T, D) scaled and shifted by (N, D)."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class FieldBlock(nn.Module):
    """A block with adaLN-zero."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True, qk_norm=qk_norm, norm_layer=nn.LayerNorm)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, 4 * width, act_layer=lambda: nn.GELU(approximate="tanh"))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate_a.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift_a, scale_a))
        return x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_m, scale_m))


class FieldFinalLayer(nn.Module):
    """From tokens to patches."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class FieldSiT(nn.Module):
    """SiT. Its weights are to be loaded: `selftrans`' own fit."""

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        heads: int,
        patch_size: int,
        input_size: int,
        channels: int,
        num_classes: int,
        qk_norm: bool = False,
        **_: object,
    ) -> None:
        super().__init__()
        self.patch_size, self.channels, self.null_label = patch_size, channels, num_classes
        self.x_embedder = PatchEmbed(input_size, patch_size, channels, width)
        self.t_embedder = FieldTimestepEmbedder(width)
        self.y_embedder = FieldLabelEmbedder(num_classes, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.x_embedder.num_patches, width), requires_grad=False)
        self.blocks = nn.ModuleList(FieldBlock(width, heads, qk_norm) for _ in range(depth))
        self.final_layer = FieldFinalLayer(width, patch_size**2 * channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The velocity (N, C, H, W) at x for times and labels (N,)."""
        x = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            x = block(x, c)
        x = self.final_layer(x, c)
        side, p = math.isqrt(x.shape[1]), self.patch_size
        x = x.reshape(len(x), side, side, p, p, self.channels)
        return torch.einsum("nhwpqc->nchpwq", x).reshape(len(x), self.channels, side * p, side * p)


class FolderOfMoments(Dataset):
    """One file per image: moments (2C, h, w); its label is a function of its number."""

    def __init__(self, folder: Path, classes: int) -> None:
        self.files = sorted(folder.glob("*.npy"))
        self.classes = classes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.load(self.files[index])), index % self.classes


def write_random_moments(folder: Path, run: Run, count: int) -> None:
    """Files as `FolderOfMoments` reads them, of a run's size."""
    sizes, draws = run.backbone, np.random.default_rng(0)
    shape = (2 * sizes["channels"], sizes["input_size"], sizes["input_size"])
    for number in range(count):
        np.save(folder / f"{number:06}.npy", draws.random(shape, dtype=np.float32))


class FieldTrainer:
    """Trains a run of SiT, without a method or guided by a frozen model of random weights."""

    def __init__(self, run: Run, folder: Path, device: torch.device, weights: dict[str, Tensor]) -> None:
        """``folder`` has the moments; student and teacher begin with ``weights``."""
        self.run, self.device = run, device
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.model = self._built(weights).train()
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.features: dict[str, Tensor] = {}
        self.projector: nn.Module | None = None
        trained = [self.model]
        if run.teacher is not None:
            method, width = run.row.method, run.model.width
            self.projector = projector(width, run.model.projector_width, width).to(device)
            self.teacher = self._built(weights).eval().requires_grad_(False)
            self.model.blocks[method["guided_layer"] - 1].register_forward_hook(self._keep("student"))
            self.teacher.blocks[method["guiding_layer"] - 1].register_forward_hook(self._keep("teacher"))
            trained.append(self.projector)
        recipe = run.family.optimiser
        self.parameters = list(chain.from_iterable(module.parameters() for module in trained))
        self.optimiser = torch.optim.AdamW(
            [parameter for parameter in self.parameters if parameter.requires_grad],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        self.half = device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half)
        workers = WORKERS if self.half else 0
        self.loader = DataLoader(
            FolderOfMoments(folder, run.family.data.classes),
            batch_size=run.family.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=self.half,
            persistent_workers=workers > 0,
        )
        self.batches = self._batches()
        self.logged: list[tuple[float, float]] = []

    def _built(self, weights: dict[str, Tensor]) -> FieldSiT:
        model = FieldSiT(**self.run.backbone)
        model.load_state_dict(weights)
        return model.to(self.device)

    def _keep(self, name: str):  # noqa: ANN202 - a hook
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            self.features[name] = output

        return keep

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def loss(self, x_t: Tensor, t: Tensor, dropped: Tensor, labels: Tensor, velocity: Tensor) -> Tensor:
        """The diffusion loss, and the weighted distance of projected features from the guided ones (Eqs. 3 and 4)."""
        with torch.autocast(self.device.type, torch.float16, enabled=self.half):
            predicted = self.model(x_t, t, dropped)
            loss = ((predicted - velocity) ** 2).flatten(1).mean(dim=1).mean()
            if self.projector is None:
                return loss
            with torch.no_grad():
                self.teacher(x_t, t, labels)
                conditional = self.features["teacher"]
                self.teacher(x_t, t, torch.full_like(labels, self.model.null_label))
                unconditional = self.features["teacher"]
                omega = self.run.row.method["guidance_scale"]
                target = unconditional + omega * (conditional - unconditional)
            projected = self.projector(self.features["student"])
            return loss + self.run.row.weight * F.mse_loss(projected.float(), target.float())

    def train_step(self) -> None:
        """One optimiser step."""
        moments, labels = next(self.batches)
        moments, labels = moments.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        mean, std = moments.chunk(2, dim=1)
        latents = mean + std * torch.randn_like(mean)
        t = torch.rand(len(latents), device=self.device)
        noise = torch.randn_like(latents)
        at = t.view(-1, 1, 1, 1)
        x_t, velocity = (1 - at) * latents + at * noise, noise - latents
        drop = torch.rand(len(labels), device=self.device) < self.run.family.label_dropout
        loss = self.loss(x_t, t, torch.where(drop, self.model.null_label, labels), labels, velocity)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.run.family.optimiser.clip or math.inf)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self._update_ema()
        self.logged.append((loss.item(), norm.item()))

    @torch.no_grad()
    def _update_ema(self) -> None:
        averages, decay = dict(self.ema.named_parameters()), self.run.family.average.decay
        for name, parameter in self.model.named_parameters():
            averages[name].mul_(decay).add_(parameter.data, alpha=1 - decay)
