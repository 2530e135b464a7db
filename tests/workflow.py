"""Running Snakemake for real, in a folder of the test's own, with the repository's Snakefile."""

import os
import subprocess
import sys
from pathlib import Path

TARGETS = ("methods.csv", "samplers.csv", "sweep.csv", "claims.csv", "INDEX.csv")
OTHER_METHODS = ("disperse", "layersync", "sra", "vae-repa", "irepa", "haste")  # trained, not sampled

REPOSITORY = Path(__file__).parent.parent
SMOKE = REPOSITORY / "tests" / "smoke" / "config"


def snakemake_command(*arguments: str, folder: Path, config: Path = SMOKE, cores: int = 2) -> list[str]:
    """Plain ``snakemake`` as a user calls it, working in ``folder``."""
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")),
        *("--directory", str(folder), "--cores", str(cores), "--workflow-profile", "none", "--ignore-incomplete"),
        *("--configfile", str(config / "config.yaml"), "--config", f"folder={config}"),
        *("--rerun-triggers", "mtime"),
        *arguments,
    ]


def environment() -> dict[str, str]:
    """The test's environment with one thread per process."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def snakemake(*arguments: str, folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run Snakemake to its end; the caller looks at return code and output."""
    command = snakemake_command(*arguments, folder=folder, **options)
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
