"""Where everything lies under ``results/<scale>/``, as patterns with wildcards.

What a file depends on is in its path: a run's folder ends in the hash of its recipe, a preset's key in that of its
settings, an extractor's in that of its own. So a file that is there is the right one, whatever its date.
"""

import re
from functools import cache
from pathlib import Path

KEY = "[a-z0-9][a-z0-9._-]*-[0-9a-f]{8}"  # a name and eight characters of a hash

STATE = "state.safetensors"  # in a run's working folder

# What stands for a wildcard; the Snakefile takes the same.
WILDCARDS = {
    "run": "[a-z0-9][a-z0-9_-]*-[0-9a-f]{8}",
    "step": r"\d+",
    "weights": "ema|online",
    "layer": r"\d+",
    **dict.fromkeys(("preset", "data", "tokenizer", "latents", "extractor", "encoder"), KEY),
    "split": "train|test",
    "shard": r"\d+",
    "shards": r"\d+",
    "part": r"\d+",
    "parts": r"\d+",
    "layers": r"all|guiding|\d+(,\d+)*",
    "t": r"\d(\.\d+)?",
    "images": r"\d+",
    "form": "tokens|pooled",
}


class Pattern:
    """The patterns; the Snakefile's rules use the same strings."""

    images = "data/{data}/{split}"
    images_part = "data/{data}/{split}.parts/{part}-of-{parts}.json"
    tokenizer = "tokenizers/{tokenizer}.safetensors"
    tokenizer_report = "tokenizers/{tokenizer}.json"
    latents = "latents/{latents}"
    latents_part = "latents/{latents}.parts/{part}-of-{parts}.json"
    latent_stats = "latents/{latents}/stats.json"
    extractor = "extractors/{extractor}.safetensors"
    extractor_report = "extractors/{extractor}.json"
    reference = "references/{extractor}.npz"
    reference_part = "references/{extractor}.parts/{part}-of-{parts}.json"
    reference_blocks = "work/references/{extractor}"  # not an output: what was made of a reference so far
    encoder = "encoders/{encoder}.safetensors"
    encoder_report = "encoders/{encoder}.json"
    ema = "runs/{run}/step-{step}.ema.safetensors"
    online = "runs/{run}/step-{step}.online.safetensors"
    work = "work/{run}"  # not an output: the state that a killed training goes on from, and its log
    state = f"work/{{run}}/{STATE}"
    teacher = "teachers/{run}.step-{step}.{weights}.layers-{layer}.safetensors"
    samples = "samples/{run}.step-{step}.{preset}.npz"
    batches = "work/samples/{run}.step-{step}.{preset}.{key}"  # not an output: what was drawn of samples so far
    shard = "shards/{run}.step-{step}.{preset}/{shard}-of-{shards}.json"
    export = "exports/{run}.step-{step}/README.md"
    metrics = "metrics/{run}.step-{step}.{preset}.{extractor}.json"
    features = "features/{run}.step-{step}.layers-{layers}.t-{t}.{split}-{images}.{form}.npz"


class Log:
    """Where a job's own output goes, by its rule (stage 1 and 2 are both ``train``); the Snakefile's rules use them."""

    pack_images = "logs/pack_images/{data}.{split}.log"
    pack_images_part = "logs/pack_images/{data}.{split}.{part}-of-{parts}.log"
    train_tokenizer = "logs/train_tokenizer/{tokenizer}.log"
    import_tokenizer = "logs/import_tokenizer/{tokenizer}.log"
    extract_latents = "logs/extract_latents/{latents}.log"
    extract_latents_part = "logs/extract_latents/{latents}.{part}-of-{parts}.log"
    train_extractor = "logs/train_extractor/{extractor}.log"
    import_extractor = "logs/import_extractor/{extractor}.log"
    make_reference = "logs/make_reference/{extractor}.log"
    make_reference_part = "logs/make_reference/{extractor}.{part}-of-{parts}.log"
    import_reference = "logs/import_reference/{extractor}.log"
    train_encoder = "logs/train_encoder/{encoder}.log"
    import_encoder = "logs/import_encoder/{encoder}.log"
    train = "logs/train/{run}.step-{step}.log"
    import_published = "logs/import_published/{run}.step-{step}.log"
    freeze_teacher = "logs/freeze_teacher/{run}.step-{step}.{weights}.layers-{layer}.log"
    sample = "logs/sample/{run}.step-{step}.{preset}.log"
    sample_shard = "logs/sample_shard/{run}.step-{step}.{preset}/{shard}-of-{shards}.log"
    export = "logs/export/{run}.step-{step}.log"
    evaluate = "logs/evaluate/{run}.step-{step}.{preset}.{extractor}.log"
    probe_features = "logs/probe_features/{run}.step-{step}.layers-{layers}.t-{t}.{split}-{images}.{form}.log"
    table = "logs/table/{table}.log"
    claims = "logs/claims.log"
    speed = "logs/speed.log"
    compute = "logs/compute.log"
    figure = "logs/figure/{figure}.log"
    index = "logs/index.log"
    page = "logs/page.log"


def wildcards_of(pattern: str, path: Path) -> dict[str, str] | None:
    """What stands for the wildcards of ``pattern`` in a path below ``results/<scale>/``; None if it does not fit."""
    match = _regex(pattern).fullmatch(path.as_posix())
    return None if match is None else match.groupdict()


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    """What the paths of a pattern are like."""
    parts = re.split(r"\{(\w+)\}", pattern)
    groups = [f"(?P<{text}>{WILDCARDS[text]})" if at % 2 else re.escape(text) for at, text in enumerate(parts)]
    return re.compile("".join(groups))
