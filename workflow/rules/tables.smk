# Metrics -> tables, ours beside the paper's; verdicts on its claims; and which row is which folder.


localrules:
    all,
    table,
    claims,
    index,


rule table:
    input:
        metrics=lambda wildcards: PLAN.metrics_of(table_of(wildcards)),
        reports=lambda wildcards: PLAN.reports_of(table_of(wildcards)),
    output:
        csv="results/{table}.csv",
        markdown="results/{table}.md",
        latex="results/{table}.tex",
        page=in_report("results/{table}.html", "table", "Tables", table_in_words),
    log:
        at("logs/table/{table}.log"),
    benchmark:
        at("benchmarks/table/{table}.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
        table=lambda wildcards: table_of(wildcards).model_dump(mode="json"),
        metrics=lambda wildcards, input: input.metrics,
        notes=lambda wildcards: PLAN.scale.notes.get(wildcards.table, ""),
    shell:
        "python -m selftrans table {wildcards.table} {params.extent} > {log} 2> >(tee -a {log} >&2)"


rule claims:
    input:
        PLAN.metrics_of_claims(),
    output:
        csv="results/claims.csv",
        markdown="results/claims.md",
        latex="results/claims.tex",
        page=in_report("results/claims.html", "claims", "Claims", {"what": "verdicts"}),
    log:
        at("logs/claims.log"),
    benchmark:
        at("benchmarks/claims.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
        # An edited claim is judged again.
        claims=PLAN.project.model_dump_json(include={"claims"}),
        compared_otherwise=PLAN.scale.model_dump_json(include={"claims"}),
    shell:
        "python -m selftrans claims {params.extent} > {log} 2> >(tee -a {log} >&2)"


rule index:
    output:
        "results/INDEX.csv",
    log:
        at("logs/index.log"),
    benchmark:
        at("benchmarks/index.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
        runs=list(RUNS),
    shell:
        "python -m selftrans index {params.extent} > {log} 2> >(tee -a {log} >&2)"
