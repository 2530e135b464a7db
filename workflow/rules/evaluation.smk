# The extractors, the references that samples are compared with, the encoder of REPA rows, and the metrics.


rule train_extractor:
    input:
        ancient(images_of("extractor", "train", "test")),
    output:
        weights=at(Pattern.extractor),
        report=at(Pattern.extractor_report),
    log:
        at(Log.train_extractor),
    benchmark:
        at("benchmarks/train_extractor/{extractor}.tsv")
    wildcard_constraints:
        extractor=extractors_where(
            lambda judge: isinstance(judge.recipe, ClassifierRecipe)
        ),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(3000),
        runtime=minutes(30),
    params:
        family=extractor_option,
    shell:
        "python -m selftrans train-extractor --family {params.family}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


# Published files do not change: a copy with another date imports and measures nothing again.
rule import_extractor:
    input:
        ancient(published_weights("extractor")),
    output:
        weights=at(Pattern.extractor),
        report=at(Pattern.extractor_report),
    log:
        at(Log.import_extractor),
    benchmark:
        at("benchmarks/import_extractor/{extractor}.tsv")
    wildcard_constraints:
        extractor=extractors_where(
            lambda judge: isinstance(judge.recipe, PublishedExtractor)
        ),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(6000),
        runtime=minutes(30),
    params:
        family=extractor_option,
    shell:
        "python -m selftrans import-extractor --family {params.family}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule make_reference:
    input:
        images=ancient(images_to_compare),
        extractor=ancient(at(Pattern.extractor)),
        parts=ancient(parts_of(Pattern.reference_part, "extractor")),
    output:
        at(Pattern.reference),
    log:
        at(Log.make_reference),
    benchmark:
        at("benchmarks/make_reference/{extractor}.tsv")
    wildcard_constraints:
        extractor=extractors_where(lambda judge: judge.reference is None),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=memory(6000),
        runtime=data_minutes("extractor"),
    params:
        gpus=gpus_option,
        family=extractor_option,
    shell:
        "python -m selftrans make-reference --family {params.family}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


# Sums over blocks of images lie in an undeclared folder: a killed job goes on with the block that it was at. With more
# than one part in the data, as many jobs make them beforehand; whatever they leave, `make_reference` makes itself.
rule make_reference_part:
    input:
        images=ancient(images_to_compare),
        extractor=ancient(at(Pattern.extractor)),
    output:
        temp(at(Pattern.reference_part)),
    log:
        at(Log.make_reference_part),
    benchmark:
        at("benchmarks/make_reference/{extractor}.{part}-of-{parts}.tsv")
    wildcard_constraints:
        extractor=extractors_where(lambda judge: judge.reference is None),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=memory(6000),
        runtime=data_minutes("extractor"),
    params:
        gpus=gpus_option,
        family=extractor_option,
    shell:
        "python -m selftrans make-reference --family {params.family}"
        " --part {wildcards.part}/{wildcards.parts}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule import_reference:
    input:
        file=ancient(published_reference),
        extractor=ancient(at(Pattern.extractor)),
    output:
        at(Pattern.reference),
    log:
        at(Log.import_reference),
    benchmark:
        at("benchmarks/import_reference/{extractor}.tsv")
    wildcard_constraints:
        extractor=extractors_where(lambda judge: judge.reference is not None),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        gpus=gpus_option,
        family=extractor_option,
    shell:
        "python -m selftrans import-reference --family {params.family}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule train_encoder:
    input:
        ancient(images_of("encoder", "train", "test")),
    output:
        weights=at(Pattern.encoder),
        report=at(Pattern.encoder_report),
    log:
        at(Log.train_encoder),
    benchmark:
        at("benchmarks/train_encoder/{encoder}.tsv")
    wildcard_constraints:
        encoder=encoders_of(ClassifierRecipe),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(3000),
        runtime=minutes(30),
    params:
        family=family_option("encoder"),
    shell:
        "python -m selftrans train-encoder --family {params.family}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


# Published weights do not change: a copy with another date imports and trains nothing again.
rule import_encoder:
    input:
        ancient(published_weights("encoder")),
    output:
        weights=at(Pattern.encoder),
        report=at(Pattern.encoder_report),
    log:
        at(Log.import_encoder),
    benchmark:
        at("benchmarks/import_encoder/{encoder}.tsv")
    wildcard_constraints:
        encoder=encoders_of(PublishedEncoder),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(12000),
        runtime=minutes(30),
    params:
        family=family_option("encoder"),
    shell:
        "python -m selftrans import-encoder --family {params.family}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule evaluate:
    input:
        samples=ancient(at(Pattern.samples)),
        extractor=ancient(at(Pattern.extractor)),
        reference=ancient(at(Pattern.reference)),
    output:
        at(Pattern.metrics),
    log:
        at(Log.evaluate),
    benchmark:
        at("benchmarks/evaluate/{run}.step-{step}.{preset}.{extractor}.tsv")
    group:
        MEASURED
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        gpu=1,
        cpus_per_gpu=THREADS.other,
        mem_mb=samples_memory,
        runtime=minutes(60),
    params:
        gpus=gpus_option,
        reference=reference_to,
        preset=preset_name,
        second=second_option,
    shell:
        "python -m selftrans evaluate {params.reference} --preset {params.preset}{params.second}"
        "{params.gpus} --threads {threads} > {log} 2> >(tee -a {log} >&2)"
