"""A scale's file: presets ``like`` published ones, sweeps as the presets that they stand for, sizes that fit."""

from pathlib import Path
from typing import Any

from selftrans.config import Preset, Scale
from selftrans.errors import UserError
from selftrans.loading.entries import expand, mapping_under
from selftrans.records import check, read_yaml, refuse


def load_scale(settings_file: Path, name: str) -> tuple[Path, Scale]:
    """(file, scale). ``name`` is one in ``scales/``, or the path of a YAML file."""
    path = _scale_file(settings_file, name)
    scale = check(path, Scale, _with_presets(path, settings_file.parent / "presets.yaml"))
    scale = _with_sweeps(path, scale)
    _check_sizes(path, scale)
    _check_presets(path, scale)
    return path, scale


def _scale_file(settings_file: Path, scale: str) -> Path:
    if scale.endswith((".yaml", ".yml")):
        return Path(scale)
    path = settings_file.parent / "scales" / f"{scale}.yaml"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.yaml")))
        refuse(settings_file, "scale", scale, f"{known}, or a path ending in .yaml")
    return path


def _with_presets(path: Path, presets_file: Path) -> dict[str, Any]:
    """The scale's file, with ``like`` in its presets replaced by what presets.yaml says of that name."""
    raw, published = read_yaml(path), None
    for name, family in mapping_under(raw, "families").items():
        presets = mapping_under(family, "presets")
        for preset in [key for key in presets if "like" in mapping_under(presets, key)]:
            published = published or _published_presets(presets_file)
            like = presets[preset].pop("like")
            if not isinstance(like, str) or like not in published:
                refuse(path, f"families.{name}.presets.{preset}.like", like, f"{', '.join(published)} ({presets_file})")
            presets[preset] = published[like] | presets[preset]
    return raw


def _published_presets(path: Path) -> dict[str, dict[str, Any]]:
    """presets.yaml: what a scale's preset may be ``like``; the scale says how many samples."""
    presets = expand(path)
    for name, preset in presets.items():
        check(path, Preset, {"samples": 1} | preset, name)
    return presets


def _with_sweeps(path: Path, scale: Scale) -> Scale:
    """The scale with the presets that its families' sweeps stand for."""
    families = {}
    for name, family in scale.families.items():
        presets = dict(family.presets)
        for sweep_name, sweep in family.sweeps.items():
            if sweep.preset not in family.presets:
                refuse(path, f"families.{name}.sweeps.{sweep_name}.preset", sweep.preset, ", ".join(family.presets))
            made = sweep.presets(family.presets[sweep.preset])
            presets |= {f"{sweep_name}-{ending}": preset for ending, preset in made.items()}
        families[name] = family.model_copy(update={"presets": presets})
    return scale.model_copy(update={"families": families})


def _check_sizes(path: Path, scale: Scale) -> None:
    """What must divide what, said before a job finds out."""
    for name, family in scale.families.items():
        key, tokenizer, size = f"families.{name}", family.tokenizer, family.data.size
        shrink = 2 ** (len(tokenizer.block_channels) - 1)
        if size % shrink:
            refuse(path, f"{key}.data.size", size, f"a multiple of {shrink}, by which the VAE shrinks images")
        for channels in tokenizer.block_channels:
            if channels % tokenizer.norm_groups:
                groups = f"multiples of norm_groups, {tokenizer.norm_groups}"
                refuse(path, f"{key}.tokenizer.block_channels", channels, groups)
        steps = [family.step_at(epoch) for epoch in sorted({*family.milestones, *family.long_schedules})]
        if steps != sorted(set(steps)):
            refuse(path, f"{key}.long_schedules", family.long_schedules, "more steps for more epochs")
        for model_name, model in family.models.items():
            key = f"families.{name}.models.{model_name}"
            if model.width % 4:
                refuse(path, f"{key}.width", model.width, "a multiple of 4")
            if model.width % model.heads:
                refuse(path, f"{key}.heads", model.heads, f"a divisor of the width, {model.width}")
            if size // shrink % model.patch_size:
                latents = f"a divisor of the latents' size, {size // shrink}"
                refuse(path, f"{key}.patch_size", model.patch_size, latents)


def _check_presets(path: Path, scale: Scale) -> None:
    """What a sampler needs, and what it has no use for."""
    for name, family in scale.families.items():
        for preset_name, preset in family.presets.items():
            key, sampler = f"families.{name}.presets.{preset_name}", preset.sampler
            if sampler == "dopri5_ode" and preset.steps is not None:
                refuse(path, f"{key}.steps", preset.steps, "nothing, since dopri5_ode chooses its own")
            if sampler != "dopri5_ode" and preset.steps is None:
                raise UserError(f"{path}: {key}.steps: missing; {sampler} needs a number of them, such as 50")
            if sampler not in ("euler_ode", "heun_ode") and preset.time_shift != 1:
                refuse(path, f"{key}.time_shift", preset.time_shift, f"nothing, since {sampler} has a grid of its own")
            channels = family.tokenizer.latent_channels
            if preset.cfg_channels is not None and preset.cfg_channels > channels:
                refuse(path, f"{key}.cfg_channels", preset.cfg_channels, f"1 to {channels}, the channels of a latent")
            if preset.shards > preset.batches:
                batches = f"1 to {preset.batches}, the batches of {preset.batch_size} samples"
                refuse(path, f"{key}.shards", preset.shards, batches)
