# Training time (Sec. 4.5), measured where the job runs. It rests on nothing that is made; another machine's figures are
# not made again, since they are right for that one.

if timed_runs(PLAN):

    rule speed:
        input:
            lambda wildcards: made_of("speed"),
        output:
            "results/speed.json",
            "results/speed.csv",
            "results/speed.md",
        log:
            at(Log.speed),
        benchmark:
            at("benchmarks/speed.tsv")
        conda:
            "../../environment.yml"
        threads: THREADS.train
        resources:
            gpu=1,
            cpus_per_gpu=THREADS.train,
            mem_mb=memory(12000),
            runtime=minutes(30),
        params:
            extent=EXTENT,
            gpus=gpus_option,
        shell:
            "python -m selftrans speed {params.extent}{params.gpus} --threads {threads}"
            " > {log} 2> >(tee -a {log} >&2)"
