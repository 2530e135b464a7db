# What the workflow made -> figures, each with the data behind it beside it. `snakemake figures` draws all of them.


localrules:
    figures,


rule figures:
    input:
        expand("results/figures/{figure}.pdf", figure=FIGURES),


rule figure:
    input:
        figure_inputs,
    output:
        "results/figures/{figure}.json",
        "results/figures/{figure}.csv",
        "results/figures/{figure}.pdf",
        picture_of_report("results/figures/{figure}.png"),
    log:
        at("logs/figure/{figure}.log"),
    benchmark:
        at("benchmarks/figure/{figure}.tsv")
    wildcard_constraints:
        figure=figures_with("csv"),
    conda:
        "../../environment.yml"
    threads: THREADS.other
    resources:
        mem_mb=memory(4000),
        runtime=minutes(10),
    params:
        extent=EXTENT,
        entry=lambda wildcards: FIGURES[wildcards.figure].model_dump(mode="json"),  # for its caption
    shell:
        "python -m selftrans figure {wildcards.figure} {params.extent}"
        " --threads {threads} > {log} 2> >(tee -a {log} >&2)"


# The same for those whose data are arrays.
use rule figure as figure_of_arrays with:
    output:
        "results/figures/{figure}.json",
        "results/figures/{figure}.npz",
        "results/figures/{figure}.pdf",
        picture_of_report("results/figures/{figure}.png"),
    wildcard_constraints:
        figure=figures_with("npz"),
