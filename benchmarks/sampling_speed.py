"""A forward pass inside each sampler against a bare one, and against the field's way of guiding; prints JSON.

    python benchmarks/sampling_speed.py [--batch-size 2] [--steps 3] [--threads 1] [--rounds 5]
    python benchmarks/sampling_speed.py --device cuda --model sit-xl2 --precision bfloat16 --batch-size 128 --steps 25

A sampling of a few steps and as many forward passes of the same batch (doubled inside the interval of guidance) take
turns, so that whatever else the machine does meets both; each figure is the median over the turns. On one CPU thread
the clock is that thread's own time, which other processes do not spend. Weights are random: what they hold costs
nothing. The field's way is the eager model of benchmarks/field_style.py in float32 (TF32 on a GPU), on a doubled batch.
"""

import argparse
import functools
import statistics
from pathlib import Path

import torch
from field_style import FieldSiT
from report import add_options, as_they_are, prepare, rounded, show
from torch import nn

from selftrans.config.presets import Preset
from selftrans.config.reading.project import load_project
from selftrans.models.backbones import build_backbone
from selftrans.plan.plan import Plan
from selftrans.sampling.drawing import precision_of
from selftrans.sampling.image_model import sample_latents, sampling_of
from selftrans.training.speed import Step, clock_of, ratio, take_turns

CONFIG = Path(__file__).parent.parent / "config"
PRESETS = {
    "euler_ode": {"sampler": "euler_ode"},
    "heun_ode": {"sampler": "heun_ode"},
    "euler_maruyama_sde": {"sampler": "euler_maruyama_sde"},
    "euler_maruyama_sde, guided": {"sampler": "euler_maruyama_sde", "cfg_scale": 1.8},
}
GUIDED = "euler_maruyama_sde, guided"
BARE, FIELD = "{}, bare", "field's, guided"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="imagenet")
    parser.add_argument("--model", default="sit-b2", help="a row of SiT, such as sit-xl2 (default: sit-b2)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"], default="float32")
    add_options(parser, rounds=5)
    options = parser.parse_args()
    device = prepare(options)
    sizes = Plan(load_project(CONFIG, scale=options.scale)).run(options.model, 0).backbone
    backbone = build_backbone(**sizes)
    backbone.initialise(torch.Generator().manual_seed(0))
    field = FieldSiT(**sizes)
    field.load_state_dict(backbone.state_dict())
    backbone, field = (model.eval().to(device) for model in (backbone, field))
    contenders: dict[str, Step] = {}
    for name, settings in PRESETS.items():
        preset = Preset(steps=options.steps, samples=options.batch_size, precision=options.precision, **settings)
        contenders[name] = functools.partial(sampled, backbone, preset)
        contenders[BARE.format(name)] = functools.partial(passed, backbone, preset, passes(preset))
    guided = Preset(steps=options.steps, samples=options.batch_size, precision="tf32", **PRESETS[GUIDED])
    contenders[FIELD] = functools.partial(passed, field, guided, options.steps)
    seconds = take_turns(as_they_are(contenders), options.rounds, 1, clock_of(device), warm_up=0)
    inside = {name: passes(Preset(steps=options.steps, samples=1, **PRESETS[name])) for name in PRESETS}
    ratios = {f"{name}: takes, of bare": ratio(seconds[BARE.format(name)], seconds[name]) for name in PRESETS}
    ratios["guided: as fast as the field's"] = ratio(seconds[GUIDED], seconds[FIELD])
    medians = {
        name: statistics.median(own) / inside.get(name.removesuffix(", bare"), options.steps)
        for name, own in seconds.items()
    }
    what = "a forward pass inside a sampler, and by itself"
    show(what, "seconds of a pass", options, rounded(medians, 4), rounded(ratios), backbone=sizes)


def passes(preset: Preset) -> int:
    """Forward passes of a sampling."""
    return 2 * preset.steps - 1 if preset.sampler == "heun_ode" else preset.steps


@torch.no_grad()
def sampled(backbone: nn.Module, preset: Preset) -> None:
    """A batch of latents."""
    indices = torch.arange(preset.samples)
    sample_latents(backbone, indices % backbone.num_classes, indices, preset, 0)


@torch.no_grad()
def passed(model: nn.Module, preset: Preset, count: int) -> None:
    """Bare forward passes of the batch that a sampler shows its model."""
    shown, where = preset.samples * (1 if preset.cfg_scale == 1 else 2), model.pos_embed.device
    side = model.patch_size * round(model.pos_embed.shape[1] ** 0.5)
    x, t = torch.randn(shown, model.channels, side, side, device=where), torch.full((shown,), 0.5, device=where)
    y = torch.zeros(shown, dtype=torch.long, device=where)
    with precision_of(sampling_of(preset), where):
        for _ in range(count):
            model(x, t, y)


if __name__ == "__main__":
    main()
