# Samples of a run at a milestone; all rows of a seed share labels and noise.
# Batches lie in an undeclared folder until all are there: a killed job goes on with the batch that it was at. With
# more than one shard in the preset, as many jobs draw them beforehand; whatever they leave, `sample` draws itself.


rule sample:
    input:
        weights=ancient(at(Pattern.ema)),
        tokenizer=ancient(of_run(Pattern.tokenizer, "tokenizer")),
        stats=ancient(stats_of),
        shards=ancient(shards_of),
    output:
        at(Pattern.samples),
    log:
        at(Log.sample),
    benchmark:
        at("benchmarks/sample/{run}.step-{step}.{preset}.tsv")
    group:
        MEASURED
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=samples_memory,
        runtime=sampling_minutes,
    params:
        gpus=gpus_option,
        reference=reference_to,
        preset=preset_name,
    shell:
        "python -m selftrans sample {params.reference} --preset {params.preset}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule sample_shard:
    input:
        weights=ancient(at(Pattern.ema)),
        tokenizer=ancient(of_run(Pattern.tokenizer, "tokenizer")),
        stats=ancient(stats_of),
    output:
        temp(at(Pattern.shard)),
    log:
        at(Log.sample_shard),
    benchmark:
        at("benchmarks/sample_shard/{run}.step-{step}.{preset}/{shard}-of-{shards}.tsv")
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=sampling_memory,
        runtime=sampling_minutes,
    params:
        gpus=gpus_option,
        reference=reference_to,
        preset=preset_name,
    shell:
        "python -m selftrans sample {params.reference} --preset {params.preset}"
        " --shard {wildcards.shard}/{wildcards.shards}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


# A folder that diffusers loads. The card, which stands for the folder, tells the metrics that are there when it is made.
rule export:
    input:
        weights=ancient(at(Pattern.ema)),
        tokenizer=ancient(of_run(Pattern.tokenizer, "tokenizer")),
        stats=ancient(of_run(Pattern.latent_stats, "latents")),
    output:
        at(Pattern.export),
    log:
        at(Log.export),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(3000),
        runtime=minutes(30),
    params:
        reference=reference_to,
    shell:
        "python -m selftrans export {params.reference}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"
