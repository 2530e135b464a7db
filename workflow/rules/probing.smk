# Features of runs at milestones, which figures look at: all of the same images with the same noise.


rule probe_features:
    input:
        source=ancient(probed),
        tokenizer=ancient(of_run(Pattern.tokenizer, "tokenizer")),
        stats=ancient(of_run(Pattern.latent_stats, "latents")),
        images=ancient(probed_images),
    output:
        at(Pattern.features),
    log:
        at(Log.probe_features),
    benchmark:
        at(
            "benchmarks/probe_features/{run}.step-{step}.layers-{layers}.t-{t}.{split}-{images}.{form}.tsv"
        )
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=memory(4000),
        runtime=minutes(30),
    params:
        gpus=gpus_option,
        reference=reference_to,
    shell:
        "python -m selftrans probe-features {params.reference} --layers {wildcards.layers} --t {wildcards.t}"
        " --images {wildcards.images} --form {wildcards.form} --split {wildcards.split}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"
