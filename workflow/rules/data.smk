# Images, the VAE, latents.
# Packed rows lie in shards, which are not declared: a killed job goes on with the shard that it was at. With more than
# one part in the data, as many jobs make them beforehand; whatever they leave, the job that gathers them makes itself.


rule pack_images:
    input:
        ancient(parts_of(Pattern.images_part, "data")),
    output:
        packed(Pattern.images),
    log:
        at(Log.pack_images),
    benchmark:
        at("benchmarks/pack_images/{data}.{split}.tsv")
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(6000),
        runtime=data_minutes("data"),
    params:
        family=family_option("data"),
    shell:
        "python -m selftrans pack-images --family {params.family} --split {wildcards.split}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule pack_images_part:
    output:
        temp(at(Pattern.images_part)),
    log:
        at(Log.pack_images_part),
    benchmark:
        at("benchmarks/pack_images/{data}.{split}.{part}-of-{parts}.tsv")
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(6000),
        runtime=data_minutes("data"),
    params:
        family=family_option("data"),
    shell:
        "python -m selftrans pack-images --family {params.family} --split {wildcards.split}"
        " --part {wildcards.part}/{wildcards.parts}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule train_tokenizer:
    input:
        ancient(images_of("tokenizer", "train", "test")),
    output:
        weights=at(Pattern.tokenizer),
        report=at(Pattern.tokenizer_report),
    log:
        at(Log.train_tokenizer),
    benchmark:
        at("benchmarks/train_tokenizer/{tokenizer}.tsv")
    wildcard_constraints:
        tokenizer=tokenizers_of(TokenizerRecipe),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(3000),
        runtime=minutes(60),
    params:
        family=family_option("tokenizer"),
    shell:
        "python -m selftrans train-tokenizer --family {params.family}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


# Published weights do not change: a copy with another date imports and trains nothing again.
rule import_tokenizer:
    input:
        ancient(published_vae),
    output:
        weights=at(Pattern.tokenizer),
        report=at(Pattern.tokenizer_report),
    log:
        at(Log.import_tokenizer),
    benchmark:
        at("benchmarks/import_tokenizer/{tokenizer}.tsv")
    wildcard_constraints:
        tokenizer=tokenizers_of(PublishedTokenizer),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        family=family_option("tokenizer"),
    shell:
        "python -m selftrans import-tokenizer --family {params.family}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule extract_latents:
    input:
        images=ancient(images_to_encode),
        tokenizer=ancient(vae_of_latents),
        parts=ancient(parts_of(Pattern.latents_part, "latents")),
    output:
        packed(Pattern.latents),
        stats=at(Pattern.latent_stats),
    log:
        at(Log.extract_latents),
    benchmark:
        at("benchmarks/extract_latents/{latents}.tsv")
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=memory(6000),
        runtime=data_minutes("latents"),
    params:
        gpus=gpus_option,
        family=family_option("latents"),
    shell:
        "python -m selftrans extract-latents --family {params.family}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule extract_latents_part:
    input:
        images=ancient(images_to_encode),
        tokenizer=ancient(vae_of_latents),
    output:
        temp(at(Pattern.latents_part)),
    log:
        at(Log.extract_latents_part),
    benchmark:
        at("benchmarks/extract_latents/{latents}.{part}-of-{parts}.tsv")
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=memory(6000),
        runtime=data_minutes("latents"),
    params:
        gpus=gpus_option,
        family=family_option("latents"),
    shell:
        "python -m selftrans extract-latents --family {params.family}"
        " --part {wildcards.part}/{wildcards.parts}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"
