# Every table and figure of the paper is a target: snakemake --cores all results/table5.csv results/figures/fig4.pdf
# `make` does the same after setting up an isolated environment. README.md starts at the beginning.

from snakemake.utils import min_version

min_version("9.8")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/sampling.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/speed.smk"
include: "workflow/rules/probing.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


# Claims take more seeds than tables, figures their own runs: results/claims.csv and figures are targets of their own.
rule all:
    default_target: True
    input:
        [f"results/{table}.csv" for table in PLAN.project.tables],
        "results/INDEX.csv",
