# Training: one job per run and milestone, each going on from the milestone before. Stage 1 is every run that
# needs no teacher; stage 2 learns from a frozen one as long as its row's stop is ahead.
# A run's state lies in its undeclared working folder, since Snakemake deletes declared outputs before a job.
# The milestone before is `ancient`: made again it is the same, and a new one in between retrains nothing.


rule train_stage1:
    input:
        before=ancient(milestone_before),
        latents=ancient(of_run(Pattern.latent_stats, "latents")),
        encoder=ancient(encoder_and_images),
    output:
        ema=at(Pattern.ema),
        online=temp(at(Pattern.online)),
    log:
        at(Log.train),
    benchmark:
        at("benchmarks/train/{run}.step-{step}.tsv")
    wildcard_constraints:
        run=runs_where(lambda run: run.teacher is None and run.row.published is None),
    conda:
        "../../environment.yml"
    threads: THREADS.train * PLAN.project.ranks // PLAN.project.nodes
    resources:
        **RESOURCES.nodes,
        gpu=PLAN.project.ranks,
        cpus_per_gpu=THREADS.train,
        mem_mb=training_memory,
        runtime=training_minutes,
    params:
        srun=srun,
        gpus=gpus_option,
        reference=reference_to,
        ranks=PLAN.project.ranks,
        nodes=PLAN.project.nodes,
        threads=THREADS.train,
    shell:
        "{params.srun}python -m selftrans train {params.reference} --ranks {params.ranks} --nodes {params.nodes}"
        "{params.gpus} --threads {params.threads} > {log} 2> >(tee -a {log} >&2)"


# A row whose weights are published is trained nowhere. As with all published weights, a copy with another date makes
# nothing again.
rule import_published:
    input:
        ancient(checkpoint_of),
    output:
        at(Pattern.ema),
    log:
        at(Log.import_published),
    benchmark:
        at("benchmarks/import_published/{run}.step-{step}.tsv")
    wildcard_constraints:
        run=runs_where(lambda run: run.row.published is not None),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(12000),
        runtime=minutes(30),
    params:
        reference=reference_to,
    shell:
        "python -m selftrans import-published {params.reference}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


rule freeze_teacher:
    input:
        ancient(lambda wildcards: at(getattr(Pattern, wildcards.weights))),
    output:
        at(Pattern.teacher),
    log:
        at(Log.freeze_teacher),
    benchmark:
        at("benchmarks/freeze_teacher/{run}.step-{step}.{weights}.layers-{layer}.tsv")
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(3000),
        runtime=minutes(10),
    params:
        reference=reference_to,
    shell:
        "python -m selftrans freeze-teacher {params.reference} --layer {wildcards.layer}"
        " --weights {wildcards.weights} --threads {threads} > {log} 2> >(tee -a {log} >&2)"


use rule train_stage1 as train_stage2 with:
    input:
        before=ancient(milestone_before),
        latents=ancient(of_run(Pattern.latent_stats, "latents")),
        teacher=ancient(teacher),
    wildcard_constraints:
        run=runs_where(lambda run: run.teacher is not None),
