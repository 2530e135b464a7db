# Metrics -> tables, ours beside the paper's; verdicts on its claims; what methods cost; and which row is which folder.


localrules:
    all,
    table,
    claims,
    compute,
    index,


rule table:
    input:
        made_of=lambda wildcards: made_of(wildcards.table),
        metrics=lambda wildcards: PLAN.metrics_of(table_of(wildcards)),
        reports=lambda wildcards: PLAN.reports_of(table_of(wildcards)),
    output:
        record="results/{table}.json",
        csv="results/{table}.csv",
        markdown="results/{table}.md",
        latex="results/{table}.tex",
        page=in_report("results/{table}.html", "table", "Tables", table_in_words),
    log:
        at(Log.table),
    benchmark:
        at("benchmarks/table/{table}.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
        table=lambda wildcards: table_of(wildcards).model_dump(mode="json"),  # for its caption
    shell:
        "python -m selftrans table {wildcards.table} {params.extent} > {log} 2> >(tee -a {log} >&2)"


rule claims:
    input:
        made_of=lambda wildcards: made_of("claims"),
        metrics=PLAN.metrics_of_claims(),
    output:
        record="results/claims.json",
        csv="results/claims.csv",
        markdown="results/claims.md",
        latex="results/claims.tex",
        page=in_report("results/claims.html", "claims", "Claims", {"what": "verdicts"}),
    log:
        at(Log.claims),
    benchmark:
        at("benchmarks/claims.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
    shell:
        "python -m selftrans claims {params.extent} > {log} 2> >(tee -a {log} >&2)"


rule compute:
    input:
        made_of=lambda wildcards: made_of("compute"),
        metrics=PLAN.metrics_of_compute(),
    output:
        record="results/compute.json",
        csv="results/compute.csv",
        markdown="results/compute.md",
        latex="results/compute.tex",
        page=in_report(
            "results/compute.html", "compute", "Tables", {"what": "what a FLOP buys"}
        ),
    log:
        at(Log.compute),
    benchmark:
        at("benchmarks/compute.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
    shell:
        "python -m selftrans compute {params.extent} > {log} 2> >(tee -a {log} >&2)"


rule index:
    input:
        lambda wildcards: made_of("INDEX"),
    output:
        "results/INDEX.csv",
        "results/INDEX.json",
    log:
        at(Log.index),
    benchmark:
        at("benchmarks/index.tsv")
    conda:
        "../../environment.yml"
    params:
        extent=EXTENT,
    shell:
        "python -m selftrans index {params.extent} > {log} 2> >(tee -a {log} >&2)"
