# The plan (selftrans/plan/plan.py) knows every run, what it rests on, and every path; rules ask it.

import os
import shlex
import signal
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from selftrans import warm
from selftrans.config.families import (
    ClassifierRecipe,
    PublishedEncoder,
    PublishedExtractor,
    PublishedTokenizer,
    TokenizerRecipe,
)
from selftrans.config.reading.project import check_asked, load_project
from selftrans.errors import UserError, system_error
from selftrans.gpus import visible
from selftrans.plan.outside import require_outside
from selftrans.plan.paths import WILDCARDS, Log, Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.resources import JobResources
from selftrans.plan.speed import timed_runs
from selftrans.reporting.figures.registry import figures_of, inputs_of
from selftrans.reporting.results import date_sources, source_of
from selftrans.scheduler import (
    check_profile,
    end_jobs_on_sigterm,
    hold_folder,
    require_accounting,
    require_nodes,
    retry_what_goes_on,
)

try:
    if workflow.is_main_process:
        check_profile(sys.argv[1:], Path(workflow.basedir))
    asked = check_asked(config)
    CONFIGURATION = Path(asked.pop("folder", f"{workflow.basedir}/config"))
    PLAN = Plan(load_project(CONFIGURATION, **asked))
    FIGURES = figures_of(PLAN)
    if workflow.is_main_process:
        date_sources(PLAN)
except UserError as error:
    raise WorkflowError(str(error))
except OSError as error:
    raise WorkflowError(system_error(error))


RUNS = PLAN.runs
THREADS = PLAN.scale.threads
RESOURCES = JobResources(PLAN)


# How many GPUs jobs of this machine share, if the call does not say (--resources gpu=N). The number of jobs in a queue
# is said for a cluster alone.
here = workflow.is_main_process and workflow.resource_settings.nodes is None
if here and "gpu" not in workflow.global_resources:
    workflow.global_resources["gpu"] = len(visible())


# On a cluster, samples are drawn and measured in one job; not where two extractors would look at them at once, for
# whom that job would want two GPUs.
TWO_EXTRACTORS = any(family.second_extractor for family in PLAN.scale.families.values())
MEASURED = None if here or TWO_EXTRACTORS else "measured"


# The options that give a verb the seeds and rows of this plan.
EXTENT = f"--seeds {len(PLAN.seeds)} --claim-seeds {len(PLAN.claim_seeds)}"
if PLAN.project.only is not None:
    EXTENT += f" --only {shlex.quote(PLAN.project.only)}"


def prepend(variable, folder):
    """Put a folder first in a search path of the environment."""
    found = os.environ.get(variable)
    os.environ[variable] = f"{folder}{os.pathsep}{found}" if found else str(folder)


# Jobs call `python -m selftrans <verb>` and get this Python, this repository and this plan's configuration.
prepend("PATH", Path(sys.executable).parent)
prepend("PYTHONPATH", workflow.basedir)
os.environ.update(
    SELFTRANS_CONFIG=str(CONFIGURATION), SELFTRANS_SCALE=str(PLAN.project.scale_file)
)

# A job is one command, which takes the place of its shell: SIGTERM reaches it.
shell.prefix("exec ")


# Before the first job of a run that is no rehearsal.
onstart:
    from selftrans.reporting.price import require_budget

    try:
        hold_folder()
        made = [
            Path(file) for job in workflow.dag.needrun_jobs() for file in job.output
        ]
        require_outside(PLAN, made)
        require_nodes(PLAN.project.nodes, here=workflow.local_exec)
        require_accounting(workflow.executor_settings)
        require_budget(PLAN, made)
    except UserError as error:
        raise WorkflowError(str(error))
    end_jobs_on_sigterm(here=workflow.local_exec)
    retry_what_goes_on(progress_of)
    if workflow.local_exec and THREADS.train == THREADS.other == 1:
        warm.start(jobs=len(list(workflow.dag.needrun_jobs())))


# On a cluster a job is a Snakemake of its own. The warning that its time is up is for what it runs.
if not workflow.is_main_process:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


# Bars are drawn where the workflow was started, while a job's own output goes to its log.
if sys.stderr.isatty() and here:
    os.environ.update(SELFTRANS_TERMINAL=os.ttyname(sys.stderr.fileno()))


wildcard_constraints:
    **WILDCARDS
    | {
        "run": "|".join(map(re.escape, RUNS)),
        "table": "|".join(map(re.escape, PLAN.project.tables)),
    },


def at(pattern):
    """A pattern of the plan as a path that Snakemake can match."""
    return f"{PLAN.root}/{pattern}"


# A file whose path says what it is made of is never made again for a date (`ancient`): if it is there, it is right.
# Results of a fixed name rest on a small input whose name has the hash of all that they are made of; its date is set
# when the workflow is planned, by what the result that is there says of itself (selftrans/reporting/results.py).
def made_of(name):
    """The input that a result of a fixed name rests on."""
    return source_of(PLAN, name)


def packed(pattern):
    """What tells that a folder of packed rows is whole; its shards survive a job that is killed."""
    return f"{at(pattern)}/manifest.json"


def parts_of(pattern, kind):
    """What tells that each part of a work is made, if the data share it among jobs."""

    def made(wildcards):
        family = family_with(kind, getattr(wildcards, kind))
        parts = PLAN.scale.families[family].data.parts
        found = expand(at(pattern), **wildcards, part=range(1, parts + 1), parts=parts)
        return found if parts > 1 else []

    return made


def reference_to(wildcards):
    """The run@epoch of a run's folder and step, and its seed, as the verbs take them."""
    run = RUNS[wildcards.run]
    epoch = run.milestones[int(wildcards.step)]
    return f"{run.name}@{epoch} --seed {run.seed} --expect {run.id}"


def family_option(kind):
    """The --family of a job whose wildcard ``kind`` is the key of what a family rests on."""
    return lambda wildcards: PLAN.family_of(kind, getattr(wildcards, kind))


def of_run(pattern, kind):
    """What a run rests on: ``pattern`` with the run's own key of ``kind``."""
    return lambda wildcards: at(pattern).format(
        **{kind: getattr(RUNS[wildcards.run].keys, kind)}
    )


def family_with(kind, key):
    """A family that rests on what has this key, which may be its second extractor."""
    return PLAN.judges[key].family if kind == "extractor" else PLAN.family_of(kind, key)


def extractor_option(wildcards):
    """The --family of a job whose wildcard is the key of an extractor, and --second if it is that."""
    return PLAN.judges[wildcards.extractor].option


def images_of(kind, *splits):
    """The packed images that something is made of, whose wildcard ``kind`` is its key."""

    def images(wildcards):
        family = family_with(kind, getattr(wildcards, kind))
        folder = at(Pattern.images)
        data = PLAN.keys[family].data
        return [f"{folder.format(data=data, split=s)}/manifest.json" for s in splits]

    return images


def images_to_encode(wildcards):
    """The packed images that latents are made of, if they are not made straight from the data source."""
    family = PLAN.family_of("latents", wildcards.latents)
    encoded = PLAN.scale.families[family].encodes_packed_images
    return images_of("latents", "train")(wildcards) if encoded else []


def images_to_compare(wildcards):
    """The packed images that a reference is made of, if it is not made straight from the data source."""
    judge = PLAN.judges[wildcards.extractor]
    packed = PLAN.scale.families[judge.family].compares_packed_images(judge.recipe)
    return images_of("extractor", "train")(wildcards) if packed else []


def vae_of_latents(wildcards):
    """The VAE that encodes the images."""
    family = PLAN.family_of("latents", wildcards.latents)
    return at(Pattern.tokenizer).format(tokenizer=PLAN.keys[family].tokenizer)


def milestone_before(wildcards):
    """The weights of the milestone that a training job goes on from."""
    run = RUNS[wildcards.run]
    before = run.milestone_before(int(wildcards.step))
    return [] if before is None else PLAN.weights(run, before)


def encoder_and_images(wildcards):
    """What a run aligned with an encoder needs besides latents."""
    run = RUNS[wildcards.run]
    if not run.needs_images:
        return []
    images = at(Pattern.images).format(data=run.keys.data, split="train")
    encoder = at(Pattern.encoder).format(encoder=run.keys.encoder)
    return [f"{images}/manifest.json", encoder]


def one_of(keys):
    """A wildcard constraint for these keys alone."""
    return "|".join(map(re.escape, sorted(set(keys)))) or "$^"


def keys_of(what, kind):
    """A wildcard constraint for the VAEs or encoders (``what``) whose recipe is of ``kind``."""
    families = PLAN.scale.families.items()
    return one_of(
        getattr(PLAN.keys[name], what)
        for name, family in families
        if isinstance(getattr(family, what), kind)
    )


def encoders_of(kind):
    """A wildcard constraint for the encoders whose recipe is of ``kind``."""
    return keys_of("encoder", kind)


def there(*paths):
    """Those of what other people made that are there: a plan can be looked at without them, and onstart asks for all."""
    return [path for path in paths if os.path.exists(path)]


def tokenizers_of(kind):
    """A wildcard constraint for the VAEs whose recipe is of ``kind``."""
    return keys_of("tokenizer", kind)


def extractors_where(condition):
    """A wildcard constraint for the extractors of which ``condition`` is true."""
    return one_of(key for key, judge in PLAN.judges.items() if condition(judge))


def published_weights(kind):
    """The file that a published encoder or extractor is made of."""

    def file(wildcards):
        if kind == "extractor":
            return there(PLAN.judges[wildcards.extractor].recipe.weights)
        family = PLAN.family_of(kind, getattr(wildcards, kind))
        return there(getattr(PLAN.scale.families[family], kind).weights)

    return file


def published_reference(wildcards):
    """The file of statistics that samples are compared with."""
    return there(PLAN.judges[wildcards.extractor].reference.file)


def second_option(wildcards):
    """What the verb needs to know of a run's second extractor."""
    second = RUNS[wildcards.run].keys.second_extractor
    return " --second" if wildcards.extractor == second else ""


def progress_of(job):
    """What a job that failed goes on from, if it does."""
    if job.name in ("train_stage1", "train_stage2"):
        return PLAN.path(Pattern.state, run=job.wildcards.run)
    if job.name in ("pack_images", "extract_latents"):
        return Path(job.output[0]).parent
    if job.name in ("pack_images_part", "extract_latents_part"):
        return Path(job.output[0]).parent.with_suffix("")  # their common folder
    if job.name in ("make_reference", "make_reference_part"):
        return PLAN.path(Pattern.reference_blocks, extractor=job.wildcards.extractor)
    return None


def stats_of(wildcards):
    """The statistics of a run's latents; of published weights, the VAE brings them."""
    run = RUNS[wildcards.run]
    trained = run.row.published is None
    return of_run(Pattern.latent_stats, "latents")(wildcards) if trained else []


def checkpoint_of(wildcards):
    """The published checkpoint of a row that trains nothing."""
    return there(RUNS[wildcards.run].row.published.file)


def published_vae(wildcards):
    """The files or folders that a published VAE is made of."""
    family = PLAN.family_of("tokenizer", wildcards.tokenizer)
    recipe = PLAN.scale.families[family].tokenizer
    return there(*filter(None, (recipe.weights, recipe.decoder_weights)))


def teacher(wildcards):
    """The frozen teacher, as long as the row's stop is ahead."""
    run = RUNS[wildcards.run]
    guided = run.teacher is not None and run.is_guided(int(wildcards.step))
    return PLAN.teacher_file(run.teacher) if guided else []


def preset_name(wildcards):
    """The name of the preset whose key a job has."""
    return RUNS[wildcards.run].preset_named(wildcards.preset)


def preset_of(wildcards):
    """The sampling preset of a job."""
    return RUNS[wildcards.run].family.presets[preset_name(wildcards)]


def gpus_option(wildcards, resources):
    """The --gpus of a job, which takes as many of this machine's; one on a cluster was given its own."""
    return "" if workflow.remote_exec else f" --gpus {resources.gpu}"


def minutes(minutes):
    """The wall time of jobs that take about so many minutes at any scale."""
    return lambda wildcards, attempt: RESOURCES.other_minutes(minutes, attempt)


def memory(megabytes):
    """The memory of jobs that take about so many MB at any scale."""
    return lambda wildcards, attempt: RESOURCES.memory(megabytes, attempt)


def data_minutes(kind):
    """The wall time of a job that reads the images, or a part, of the data that its wildcard ``kind`` is a key of."""

    def found(wildcards):
        family = family_with(kind, getattr(wildcards, kind))
        return RESOURCES.data_minutes(PLAN.scale.families[family].data)

    return found


def srun(wildcards, threads):
    """What starts a training on each of several nodes, whichever of which ends first; for one, the plugin does."""
    nodes = PLAN.project.nodes
    each = f"--nodes={nodes} --ntasks={nodes} --cpus-per-task={threads}"
    return f"srun {each} --kill-on-bad-exit=0 --wait=0 " if nodes > 1 else ""


def training_minutes(wildcards):
    """The wall time of a training."""
    return RESOURCES.training_minutes(RUNS[wildcards.run], int(wildcards.step))


def training_memory(wildcards):
    """The memory of a training."""
    return RESOURCES.training_memory(RUNS[wildcards.run])


def sampling_minutes(wildcards, attempt):
    """The wall time of a job that draws samples, or one of several parts of them, or puts these together."""
    run, preset = RUNS[wildcards.run], preset_of(wildcards)
    return RESOURCES.sampling_minutes(run, preset, preset.shards, attempt)


def sampling_memory(wildcards, attempt):
    """The memory of a job that draws a part of a preset's samples."""
    return RESOURCES.sampling_memory(RUNS[wildcards.run], attempt)


def samples_memory(wildcards, attempt):
    """The memory of a job that has all samples of a preset at once."""
    return RESOURCES.images_memory(RUNS[wildcards.run], preset_of(wildcards), attempt)


def shards_of(wildcards):
    """What tells that each part of the samples is made, if the preset shares the work among jobs."""
    shards = preset_of(wildcards).shards
    made = expand(
        at(Pattern.shard), **wildcards, shard=range(1, shards + 1), shards=shards
    )
    return made if shards > 1 else []


def runs_where(condition):
    """A wildcard constraint for the runs of which ``condition`` is true."""
    return (
        "|".join(re.escape(run.id) for run in RUNS.values() if condition(run)) or "$^"
    )


def table_of(wildcards):
    """The table's entry in tables.yaml."""
    return PLAN.project.tables[wildcards.table]


def probed(wildcards):
    """The file that features come from."""
    run = RUNS[wildcards.run]
    return PLAN.probed(run, int(wildcards.step), wildcards.layers)[1]


def probed_images(wildcards):
    """The images that models are shown."""
    data = RUNS[wildcards.run].keys.data
    images = at(Pattern.images).format(data=data, split=wildcards.split)
    return f"{images}/manifest.json"


def figures_with(data):
    """A wildcard constraint for the figures whose data are saved as ``data``."""
    names = [name for name, figure in FIGURES.items() if figure.data == data]
    return "|".join(map(re.escape, names)) or "$^"


def figure_inputs(wildcards):
    """What a figure is drawn from."""
    try:
        return [
            made_of(f"figures/{wildcards.figure}"),
            *inputs_of(PLAN, wildcards.figure),
        ]
    except UserError as error:
        raise WorkflowError(str(error))


def in_report(path, caption, category, labels):
    """An output that Snakemake's report shows."""
    return report(
        path, caption=f"../report/{caption}.rst", category=category, labels=labels
    )


def table_in_words(wildcards):
    """What the report calls a table."""
    return {"what": f"{wildcards.table}: {table_of(wildcards).title}"}


def picture_of_report(path):
    """A figure in Snakemake's report; curves of training are a category of their own."""

    def category(wildcards):
        training = FIGURES[wildcards.figure].kind == "training"
        return "Training curves" if training else "Figures"

    def labels(wildcards):
        return {"what": f"{wildcards.figure}: {FIGURES[wildcards.figure].title}"}

    return in_report(path, "figure", category, labels)
