"""``selftrans <verb>``: each step of the workflow, by hand. One file per verb: parse, load, call, save."""

import argparse
import contextlib
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType

from selftrans import __version__
from selftrans.beats import beating
from selftrans.errors import Interrupted, UserError, system_error
from selftrans.failures import ERROR, STOPPED
from selftrans.gpus import lease_gpus
from selftrans.malloc import keep_freed_memory

STDOUT = 1  # under the workflow, a job's log
GRACE = 20  # seconds for tidying up after SIGTERM

VERBS = {
    "plan": "what a target would train, what is shared, and what is already there",
    "status": "what of a target is done, running, waiting and failed",
    "doctor": "whether this machine will do for a target: libraries, GPUs, memory, disk, files from outside, SLURM",
    "fetch": "what a scale needs from outside: download it, or say where it is to be had",
    "pack-images": "images of a data source -> packed rows",
    "train-tokenizer": "packed images -> VAE",
    "import-tokenizer": "published weights -> VAE",
    "extract-latents": "packed images, VAE -> packed latents and their statistics",
    "verify": "read everything that was made, and say what is damaged and how to make just that again",
    "adopt": "results of another folder, such as another machine's -> this one's, as far as the plan needs them",
    "train-extractor": "packed images -> feature extractor of the metrics",
    "import-extractor": "published weights -> feature extractor of the metrics",
    "make-reference": "packed images or a data source, extractor -> reference statistics",
    "import-reference": "published statistics, extractor -> reference statistics",
    "train-encoder": "packed images -> vision encoder for rows that align with one",
    "import-encoder": "published weights -> vision encoder for rows that align with one",
    "train": "latents -> weights of a run at a milestone",
    "import-weights": "published checkpoint -> weights",
    "import-published": "published checkpoint of a row -> its weights",
    "verify-checkpoint": "published checkpoint -> weights, samples, metrics, beside what its publisher reports",
    "freeze-teacher": "weights -> teacher, cut off after the guiding layer",
    "sample": "weights, VAE -> samples",
    "evaluate": "samples, extractor, reference -> metrics",
    "export": "weights, VAE -> folder that diffusers loads as a pipeline",
    "probe-features": "weights, images -> features of layers, or what a method aligns with",
    "table": "metrics -> table (CSV, Markdown, LaTeX, HTML)",
    "claims": "metrics -> verdicts on the paper's claims (CSV, Markdown, LaTeX, HTML)",
    "compute": "metrics -> what methods cost until they are as good as each other (CSV, Markdown, LaTeX, HTML)",
    "figure": "metrics, samples -> figure (PDF and PNG) and the data behind it",
    "speed": "training time of Sec. 4.5, on this machine (CSV, Markdown)",
    "page": "all that was made -> one HTML page",
    "tensorboard": "training logs -> TensorBoard event files",
    "show": "print a table that was made",
    "unlock": "remove the lock of a snakemake that was killed",
    "index": "which row is which folder (CSV)",
}

# Verbs that use GPUs, if there are any.
ON_GPUS = {
    "extract-latents",
    "make-reference",
    "import-reference",
    "train",
    "verify-checkpoint",
    "sample",
    "evaluate",
    "probe-features",
    "speed",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb, and return its exit code.

    A user's mistake, and whatever the system refuses (a full disk, a folder that cannot be written), ends with a
    sentence and 2, without a traceback; what nobody has to put right before the same command goes on, with a sentence
    and 75 (a temporary failure); Ctrl-C with 130, SIGTERM with 143, SIGUSR1 with 138, a reader of the output who left
    with 141.
    """
    parser = argparse.ArgumentParser(prog="selftrans", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"selftrans {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    for verb, summary in VERBS.items():
        module = importlib.import_module(f"selftrans.commands.{verb.replace('-', '_')}")
        description = f"{summary[0].upper()}{summary[1:]}. {module.__doc__}"
        options = verbs.add_parser(verb, help=summary, description=description)
        _add_common(options)
        if verb in ON_GPUS:
            options.add_argument(
                "--gpus", type=_count, metavar="N", help="GPUs that nobody else has then; 0 for the CPU (default: all)"
            )
        module.add_arguments(options)
        options.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    parsed.given = list(sys.argv[1:] if arguments is None else arguments)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    _limit_threads(parsed.threads)
    keep_freed_memory()
    try:
        with _ended_by_signals(), beating(STDOUT):
            _share_gpus(parsed)
            code = parsed.run(parsed)  # None of most
            sys.stdout.flush()
    except Interrupted as error:
        _say(f"{STOPPED}{error}")
        return os.EX_TEMPFAIL
    except UserError as error:
        return _refuse(str(error))
    except BrokenPipeError:  # such as head's
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _drop_output()
        return _refuse(system_error(error))
    except MemoryError:
        return _refuse("there is not enough memory; close what else runs here, or work in smaller batches")
    except _Terminated as error:
        name = signal.Signals(error.code - 128).name
        _say(f"{STOPPED}by {name}; the same command begins or goes on where it can")
        return error.code
    except KeyboardInterrupt:
        _say(f"{STOPPED}by Ctrl-C; the same command begins or goes on where it can")
        return 128 + signal.SIGINT
    return code or 0


class _Terminated(SystemExit):
    """SIGTERM or SIGUSR1, to work that has no handlers of its own."""


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM, and SIGUSR1 (a cluster's warning of its time limit), end the block as an exception.

    So whoever is writing a file removes what is half written.
    Where that takes too long, or something keeps the exception to itself, an alarm ends the process.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # told twice, it still tidies up
        signal.alarm(GRACE)
        raise _Terminated(128 + number)

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _refuse(sentence: str) -> int:
    _say(f"{ERROR}{sentence}")
    return 2


def _say(sentence: str) -> None:
    """Print to standard error, unless that too is gone (``tee`` dies by the same Ctrl-C) or on the full disk."""
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Forget what standard output does not take, which Python would try to write once more as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _add_common(options: argparse.ArgumentParser) -> None:
    config = os.environ.get("SELFTRANS_CONFIG", "config")
    scale = os.environ.get("SELFTRANS_SCALE")
    options.add_argument(
        "--config", default=config, metavar="FOLDER", help="configuration (default: $SELFTRANS_CONFIG, or config)"
    )
    options.add_argument(
        "--scale",
        default=scale,
        help="name in FOLDER/scales or path of a YAML file (default: $SELFTRANS_SCALE, or that of config.yaml)",
    )
    options.add_argument("--threads", type=int, help="CPU threads (default: all)")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: 0 or more")
    return int(text)


def _share_gpus(parsed: argparse.Namespace) -> None:
    """Before torch is loaded. The ranks of a training use those that the process which started them took."""
    if getattr(parsed, "gpus", None) is not None and parsed.verb in ON_GPUS and "RANK" not in os.environ:
        lease_gpus(parsed.gpus)


def _limit_threads(threads: int | None) -> None:
    """Before torch and BLAS are loaded, which read it once."""
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
