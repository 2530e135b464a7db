"""Where everything lies under ``results/<scale>/``, as patterns with wildcards."""


class Pattern:
    """The patterns; the Snakefile's rules use the same strings."""

    images = "data/{data}/{split}"
    tokenizer = "tokenizers/{tokenizer}.safetensors"
    tokenizer_report = "tokenizers/{tokenizer}.json"
    latents = "latents/{tokenizer}"
    latent_stats = "latents/{tokenizer}/stats.json"
    extractor = "extractors/{extractor}.safetensors"
    extractor_report = "extractors/{extractor}.json"
    reference = "references/{extractor}.npz"
    encoder = "encoders/{encoder}.safetensors"
    encoder_report = "encoders/{encoder}.json"
    ema = "runs/{run}/step-{step}.ema.safetensors"
    online = "runs/{run}/step-{step}.online.safetensors"
    work = "work/{run}"  # not an output: the state that a killed training goes on from, and its log
    teacher = "teachers/{run}.step-{step}.{weights}.layers-{layer}.safetensors"
    samples = "samples/{run}.step-{step}.{preset}.npz"
    batches = "work/samples/{run}.step-{step}.{preset}.{key}"  # not an output: what was drawn of samples so far
    shard = "shards/{run}.step-{step}.{preset}/{shard}-of-{shards}.json"
    metrics = "metrics/{run}.step-{step}.{preset}.json"
    features = "features/{run}.step-{step}.layers-{layers}.t-{t}.{split}-{images}.{form}.npz"
