# The page that tells everything; `snakemake --report results/report.html -- results/index.html` afterwards.


localrules:
    page,


rule page:
    input:
        lambda wildcards: made_of("page"),
        expand("results/{target}.html", target=PLAN.targets),
        "results/INDEX.csv",
        expand("results/figures/{figure}.pdf", figure=FIGURES),
    output:
        "results/page.json",
        in_report(
            "results/index.html",
            "summary",
            "Summary",
            {"what": "the whole story on one page"},
        ),
        in_report(
            "results/training.html",
            "training",
            "Training curves",
            {"what": "every run"},
        ),
        in_report(
            "results/provenance.html",
            "provenance",
            "Provenance",
            {"what": "what was run, where, and for how long"},
        ),
    log:
        at(Log.page),
    benchmark:
        at("benchmarks/page.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
    shell:
        "python -m selftrans page {params.extent} > {log} 2> >(tee -a {log} >&2)"
