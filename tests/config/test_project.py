"""A wrong configuration is refused with file, key, value and what is allowed; a right one says what it means."""

import errno
import os
import time
from itertools import pairwise

import pytest

from selftrans.config.project import hours_of
from selftrans.config.reading.project import check_asked, load_project
from selftrans.errors import UserError


def refusal(configuration) -> str:
    """The one line that a configuration is refused with."""
    with pytest.raises(UserError) as caught:
        configuration.plan()
    (line,) = str(caught.value).splitlines()
    return line


def edit(file, change, *words):
    """A test case: after ``change`` of the configuration, the refusal names ``file`` and holds ``words``."""
    return pytest.param(change, file, words, id=words[0])


SCALE, RUNS, TABLES, CONFIG = "scales/tiny.yaml", "runs.yaml", "tables.yaml", "config.yaml"

LAYERS = "allowed: 1 to 6 (the depth of mu), or a fraction of it such as n/2"
NO_LAYER = "allowed: a block counted from 1, or a fraction of the depth such as n/2"
SRA = {"name": "sra", "layer": "n/3", "teacher_layer": "2n/3", "fade_after": 3, "fade_tenfold": 20}

UNKNOWN_KEYS = [
    edit(RUNS, lambda c: c.rows["plain"].update(modle="mu"), "plain.modle: unknown key", "model, method, weight"),
    edit(
        RUNS,
        lambda c: c.rows["guided"]["method"].update(omega=30.0),
        "guided.method.omega: unknown key",
        "guided_layer, guiding_layer, guidance_scale",
    ),
    edit(SCALE, lambda c: c.family["optimiser"].update(lr=1.0), "optimiser.lr: unknown key", "learning_rate"),
    edit(SCALE, lambda c: c.scale.update(note={}), "note: unknown key", "notes"),
    edit(TABLES, lambda c: c.tables["main"]["rows"][0].update(ran="x"), "main.rows.1.ran: unknown", "label, run"),
    edit(CONFIG, lambda c: c.settings.update(seed=3), "seed: unknown key", "scale, seeds"),
]

MISSING_KEYS = [
    edit(RUNS, lambda c: c.rows["plain"].pop("family"), "plain.family: missing", "needed: family, model"),
    edit(SCALE, lambda c: c.family["models"]["mu"].pop("depth"), "models.mu.depth: missing", "depth, width, heads"),
    edit(RUNS, lambda c: c.rows["guided"]["method"].pop("guidance_scale"), "method.guidance_scale: missing"),
    edit(RUNS, lambda c: c.rows["guided"].pop("teacher"), "guided.teacher: missing", "self_transcendence needs one"),
    edit(RUNS, lambda c: c.rows["guided"].pop("weight"), "guided.weight: missing", "self_transcendence needs one"),
    edit(SCALE, lambda c: c.family["optimiser"].update(betas=[0.9]), "optimiser.betas.2: missing"),
]

WRONG_KINDS = [
    edit(RUNS, lambda c: c.rows["guided"].update(weight="0.5"), "guided.weight: found '0.5'", "allowed: a number"),
    edit(SCALE, lambda c: c.family.update(batch_size="4"), "batch_size: found '4'", "allowed: a whole number"),
    edit(SCALE, lambda c: c.family.update(batch_size=4.5), "batch_size: found 4.5", "allowed: a whole number"),
    edit(SCALE, lambda c: c.family.update(batch_size=True), "batch_size: found True", "allowed: a whole number"),
    edit(SCALE, lambda c: c.family.update(milestones=[2, "4"]), "milestones.2: found '4'", "a whole number"),
    edit(SCALE, lambda c: c.family.update(milestones=4), "milestones: found 4", "allowed: a list"),
    edit(SCALE, lambda c: c.family.update(data="digits"), "data: found 'digits'", "allowed: a mapping"),
    edit(RUNS, lambda c: c.rows["guided"].update(method="repa"), "method: found 'repa'", "allowed: a mapping"),
    edit(RUNS, lambda c: c.rows.update(more="plain"), "more: found 'plain'", "allowed: a mapping"),
    edit(RUNS, lambda c: c.rows.update(more=None), "more: found None", "allowed: a mapping"),
    edit(RUNS, lambda c: c.rows["plain"].update(family=["small"]), "plain.family: found ('small',)", "allowed: text"),
    edit(CONFIG, lambda c: c.settings.update(seeds="4"), "seeds: found '4'", "allowed: a whole number"),
]

WRONG_VALUES = [
    edit(RUNS, lambda c: c.rows["guided"].update(weight=-0.5), "weight: found -0.5", "greater than or equal to 0"),
    edit(RUNS, lambda c: c.rows["guided"].update(weight=float("inf")), "weight: found inf", "a finite number"),
    edit(
        RUNS,
        lambda c: c.rows["guided"]["method"].update(guidance_scale=float("nan")),
        "guided.method.guidance_scale: found nan",
        "a finite number",
    ),
    edit(SCALE, lambda c: c.family.update(batch_size=0), "batch_size: found 0", "allowed: greater than 0"),
    edit(SCALE, lambda c: c.family.update(milestones=[]), "milestones: found ()", "allowed: a list of 1 or more"),
    edit(SCALE, lambda c: c.family["data"].update(source="cats"), "data.source: found 'cats'", "allowed: 'digits'"),
    edit(
        RUNS,
        lambda c: c.rows["guided"]["method"].update(normalisation="l2"),
        "guided.method.normalisation: found 'l2'",
        "allowed: 'none', 'layer_norm' or 'standardised'",
    ),
    edit(
        RUNS,
        lambda c: c.rows["guided"]["method"].update(t_window=[0.7, 0.4]),
        "guided.method.t_window: found (0.7, 0.4)",
        "allowed: two times, the earlier first",
    ),
    edit(
        RUNS,
        lambda c: c.rows["guided"]["method"].update(t_window=[0.4, 1.7]),
        "guided.method.t_window.2: found 1.7",
        "allowed: less than or equal to 1",
    ),
    edit(
        RUNS,
        lambda c: c.rows["aligned"].update(method={"name": "layersync", "pairs": []}),
        "aligned.method.pairs: found ()",
        "allowed: a list of 1 or more",
    ),
    edit(
        RUNS,
        lambda c: c.rows["aligned"].update(method=SRA | {"fade_after": 0}),
        "aligned.method.fade_after: found 0",
        "allowed: greater than 0",
    ),
    edit(RUNS, lambda c: c.rows.update({"A_b": {}}), "A_b: found 'A_b'", "lower-case letters, digits"),
    edit(RUNS, lambda c: c.rows.update({5: {}}), "5: found 5", "allowed: a name"),
    edit(CONFIG, lambda c: c.settings.update(seeds=0), "seeds: found 0", "allowed: greater than 0"),
]

UNKNOWN_NAMES = [
    edit(
        RUNS,
        lambda c: c.rows["guided"]["method"].update(name="magic"),
        "guided.method.name: found 'magic'",
        "repa, self_transcendence",
    ),
    edit(RUNS, lambda c: c.rows["plain"].update(model="xxl"), "plain.model: found 'xxl'", "mu, nu (family small"),
    edit(RUNS, lambda c: c.rows["plain"].update(family="large"), "plain.family: found 'large'", "small (scale tiny)"),
    edit(CONFIG, lambda c: c.settings.update(scale="huge"), "scale: found 'huge'", "tiny, or a path ending in .yaml"),
    edit(RUNS, lambda c: c.rows.update(more={"like": "plane"}), "more.like: found 'plane'", "plain, aligned, guided"),
    edit(RUNS, lambda c: c.rows.update(more={"like": {"a": 1}}), "more.like: found {'a': 1}", "plain, aligned"),
    edit(
        SCALE,
        lambda c: c.family.update(overrides=[{"rows": "align", "set": {}, "reason": "a slip"}]),
        "families.small.overrides.1.rows: found 'align'",
        "a pattern that matches some of plain, aligned, guided",
    ),
]

LAYERS_BEYOND = [
    edit(
        RUNS,
        lambda c, layer=layer: c.rows["guided"]["method"].update(guiding_layer=layer),
        f"guided.method.guiding_layer: found {layer!r}",
        words,
    )
    for words, layers in {
        LAYERS: (7, "7n/6", "n/20", "0n/2"),
        NO_LAYER: (0, -1, 4.0, True, "half", "4", None, "n/0", f"{10**9}n/2", "²n/3"),
    }.items()
    for layer in layers
]

PAIRS = [
    edit(
        RUNS,
        lambda c, pairs=pairs: c.rows["aligned"].update(method={"name": "layersync", "pairs": pairs}),
        f"aligned.method.{key}",
        words,
    )
    for pairs, key, words in [
        ([[1, "n/2"], [2, 7]], "pairs.2.2: found 7", LAYERS),
        ([[1, [2, 3]]], "pairs.1.2: found (2, 3)", NO_LAYER),
        ([1], "pairs.1: found 1", "allowed: a list"),
        ([[1]], "pairs.1.2: missing", "needed: a value"),
        ([[1, 2, 3]], "pairs.1: found (1, 2, 3)", "a list of 2 at most"),
    ]
]

TEACHERS = [
    edit(
        RUNS,
        lambda c: c.rows["guided"].update(teacher="alined@4"),
        "guided.teacher: found 'alined@4'",
        "<run>@<epoch> with <run> one of plain, aligned, guided",
    ),
    edit(
        RUNS,
        lambda c: c.rows["guided"].update(teacher="aligned"),
        "guided.teacher: found 'aligned'",
        "<run>@<epoch>, such as sit-b2@80",
    ),
    edit(
        RUNS,
        lambda c: c.rows["guided"].update(teacher="aligned@5"),
        "guided.teacher: found 'aligned@5'",
        "the milestones aligned@2, aligned@4, aligned@6, aligned@8",
    ),
    edit(
        RUNS,
        lambda c: c.family.update(stretch={"teacher": 2}) or c.rows["guided"].update(teacher="aligned@8"),
        "guided.teacher: found 'aligned@8'",
        "the milestones aligned@1, aligned@2, aligned@3, aligned@4 (times 2 at scale tiny)",
    ),
    edit(
        RUNS,
        lambda c: c.rows["aligned"].update(model="nu"),
        "guided.teacher: found 'aligned@4'",
        "a run of small mu, as the student is; this one is of small nu",
    ),
    edit(
        RUNS,
        lambda c: c.rows["aligned"].update(teacher="plain@4"),
        "aligned.teacher: found 'plain@4'",
        "nothing, since method vae_align takes no teacher",
    ),
    edit(
        RUNS,
        lambda c: c.rows["aligned"].update(teacher_weights="online"),
        "aligned.teacher_weights: found 'online'",
        "nothing, since the row has no teacher",
    ),
    edit(
        RUNS,
        lambda c: c.rows["guided"].update(teacher="guided@4"),
        "guided.teacher: a cycle of teachers: guided -> guided",
    ),
    edit(
        RUNS,
        lambda c: (
            c.rows.update(two={"like": "guided", "weight": 0.1}),
            c.rows["guided"].update(teacher="two@4"),
            c.rows["two"].update(teacher="three@4"),
            c.rows.update(three={"like": "guided", "weight": 0.2, "teacher": "two@4"}),
        ),
        "two.teacher: a cycle of teachers: two -> three -> two",
    ),
]

ROWS = [
    edit(
        RUNS,
        lambda c: c.rows.update(again={"like": "guided"}),
        "again and guided have one recipe",
        "delete again and reference guided in its place",
    ),
    edit(
        RUNS,
        lambda c: c.rows.update(a={"like": "b"}, b={"like": "c"}, c={"like": "b"}),
        "b.like: a cycle: b -> c -> b",
    ),
    edit(
        RUNS,
        lambda c: c.rows["guided"].update(published={"file": "x.pt", "origin": "sit", "epoch": 80}),
        "guided.method: found ",
        "nothing, since the row's weights are published",
    ),
    edit(
        RUNS,
        lambda c: c.rows["plain"].update(published={"file": "x.pt", "origin": "sit", "epoch": 80, "sha256": "0a"}),
        "plain.published.sha256: found '0a'",
        "64 hexadecimal digits",
    ),
    edit(
        RUNS,
        lambda c: c.rows.update(
            theirs={"family": "small", "model": "mu", "published": {"file": "x.pt", "origin": "sit", "epoch": 4}},
            again=c.rows["guided"] | {"teacher": "theirs@4", "teacher_weights": "online"},
        ),
        "again.teacher_weights: found 'online'",
        "ema, since the teacher's are published",
    ),
    edit(
        RUNS,
        lambda c: c.rows["plain"].update(stop=3),
        "plain.stop: found 3",
        "nothing, since the row has no method",
    ),
    edit(
        f"{RUNS} with the overrides of ",
        lambda c: c.family.update(overrides=[{"rows": "al*", "set": {"method": {"layer": 9}}, "reason": "a slip"}]),
        "aligned.method.layer: found 9",
        SCALE,
        LAYERS,
    ),
]

SIZES = [
    edit(SCALE, lambda c: c.family["models"]["mu"].update(heads=3), "mu.heads: found 3", "divisor of the width, 16"),
    edit(SCALE, lambda c: c.family["models"]["mu"].update(width=18), "mu.width: found 18", "a multiple of 4"),
    edit(SCALE, lambda c: c.family["models"]["mu"].update(patch_size=3), "patch_size: found 3", "latents' size, 8"),
    edit(SCALE, lambda c: c.family["data"].update(size=15), "data.size: found 15", "a multiple of 2"),
    edit(
        SCALE,
        lambda c: c.family["tokenizer"].update(block_channels=[8, 12]),
        "tokenizer.block_channels: found 12",
        "multiples of norm_groups, 8",
    ),
    edit(SCALE, lambda c: c.family["data"].update(source="images", path="birds"), "data.name: missing"),
    edit(SCALE, lambda c: c.family["data"].update(source="images", name="birds"), "data.path: missing"),
    edit(SCALE, lambda c: c.family["data"].update(path="birds"), "data.path: found 'birds'", "nothing"),
    edit(
        SCALE,
        lambda c: c.family["data"].update(source="images", name="birds", path="birds", classes=10, only=["jay", "owl"]),
        "data.classes: found 10",
        "2, the number of classes in",
    ),
    edit(
        SCALE,
        lambda c: c.family.update(tokenizer={"published": "va-vae", "weights": "x", "decoder": "sd-vae-ft-ema"}),
        "tokenizer.decoder: found 'sd-vae-ft-ema'",
        "decoder_weights",
    ),
    edit(
        SCALE,
        lambda c: c.family.update(
            tokenizer={"published": "va-vae", "weights": "x", "decoder": "e2e-va-vae", "decoder_weights": "y"}
        ),
        "tokenizer.decoder: found 'e2e-va-vae'",
        "allowed: va-vae, whose latents are the same",
    ),
    edit(SCALE, lambda c: c.family.update(aliases={"few": "none"}), "aliases.few: found 'none'", "headline"),
]

TABLE_CASES = [
    edit(
        TABLES,
        lambda c: c.tables["main"]["rows"][1].update(run="alined@8"),
        "main.rows.2.run: found 'alined@8'",
        "<run> one of plain, aligned, guided",
    ),
    edit(
        TABLES,
        lambda c: c.tables["main"]["rows"][1].update(run="aligned@7"),
        "main.rows.2.run: found 'aligned@7'",
        "the milestones aligned@2, aligned@4, aligned@6, aligned@8",
    ),
    edit(TABLES, lambda c: c.tables["main"].update(preset="sde"), "main.preset: found 'sde'", "allowed: headline"),
    edit(
        TABLES,
        lambda c: c.tables["main"].update(compare_with="plain@5"),
        "main.compare_with: found 'plain@5'",
        "allowed: the milestones plain@2, plain@4, plain@6, plain@8",
    ),
    edit(
        TABLES,
        lambda c: c.tables["main"]["columns"].append("omega"),
        "main.columns.3: found 'omega'",
        "'guidance_scale'",
    ),
    edit(TABLES, lambda c: c.tables["main"].update(paper="x.csv"), "main.paper: found 'x.csv'", "paper: main.csv"),
    edit(
        TABLES,
        lambda c: c.tables["main"]["rows"][1].pop("run") and c.tables["main"].pop("paper"),
        "main.rows.2.run: found None",
        "run@epoch, since the table has no paper to cite",
    ),
    edit(TABLES, lambda c: c.tables["main"]["rows"].pop(), "main.rows: found '2 rows'", "3, one for each line of"),
    edit(TABLES, lambda c: c.tables.update({"Table 5": {}}), "Table 5: found 'Table 5'", "lower-case letters"),
]


def lightning(c, width, heads):
    c.family["models"]["light"] = {"backbone": "lightningdit", "depth": 2, "width": width, "heads": heads}


def sweep(c, **found):
    fields = {"preset": "headline", "cfg_scale": [1.5, 2.0], "cfg_until": [0.7, 1.0]}
    c.family["sweeps"] = {"sweep": fields | found}


def override(c, **fields):
    c.family["overrides"] = [{"rows": "guided", "set": fields, "reason": "a small model"}]


# What a job would find out hours later.
BEFORE_ANY_JOB = [
    edit(SCALE, lambda c: c.family["data"].update(classes=3), "data.classes: found 3", "10, as digits has"),
    edit(SCALE, lambda c: c.family["data"].update(size=20), "data.size: found 20", "a multiple of 8, as the extractor"),
    edit(
        SCALE,
        lambda c: (
            c.family.update(encoder={"published": "dinov2-b", "weights": "x"}) or c.family["data"].update(size=24)
        ),
        "data.size: found 24",
        "a multiple of 16, as the encoder needs",
    ),
    edit(SCALE, lambda c: lightning(c, 24, 4), "models.light.heads: found 4", "a multiple of 4, as rotary positions"),
    edit(SCALE, lambda c: lightning(c, 12, 2), "models.light.heads: found 2", "the width, 12, is a multiple of 4"),
    edit(SCALE, lambda c: c.family["optimiser"].update(betas=[0.9, 1.0]), "betas.2: found 1.0", "less than 1"),
    edit(SCALE, lambda c: c.family.update(average={"decay": 1.0}), "average.decay: found 1.0", "less than 1"),
]

NAMES = [
    *(
        edit(TABLES, lambda c, name=name: c.tables.update({name: c.tables["main"]}), f"{name}: found '{name}'", words)
        for name, words in {
            "training": "another name, since results/training.html",
            "provenance": "another name, since results/provenance.html",
            "index": "another name, since results/INDEX.csv",
            "report": "another name, since results/report.html",
            "speed": "another name, since results/speed.csv",
            "claims": "another name, since results/claims.csv",
            "figures": "another name, since results/figures/",
            "readme": "another name, since results/README.md",
            "INDEX": "lower-case letters",
            "x" * 61: "at most 60",
        }.items()
    ),
    *(
        edit(SCALE, lambda c, name=name: c.scale.update(name=name), f"name: found '{name}'", "a name without dots")
        for name in ("figures", "main.csv")
    ),
    edit(
        RUNS, lambda c: c.rows.update({"a.b": {"like": "plain"}}), "a.b: found 'a.b'", "lower-case letters, digits, d"
    ),
    *(
        edit(
            SCALE, lambda c, kind=kind: c.family[kind].update(name="my-inception"), f"{kind}.name: found", "without 'i"
        )
        for kind in ("extractor", "encoder")
    ),
    edit(SCALE, lambda c: sweep(c, cfg_scale=[1.5, 1.50000001]), "sweeps.sweep: found", "differ in six digits"),
    edit(SCALE, lambda c: sweep(c, cfg_until=[0.7, 0.7]), "sweeps.sweep: found {'cfg", "differ in six digits"),
    edit(SCALE, lambda c: sweep(c, cfg_until=[1, 0.0]), "sweep.cfg_until.2: found 0.0", "greater than 0"),
    edit(
        SCALE,
        lambda c: sweep(c) or c.family["presets"].update({"sweep-cfg2-t1": c.family["presets"]["headline"]}),
        "sweeps.sweep: found 'sweep'",
        "a name with which sweep-cfg2-t1 is no preset already",
    ),
]

# What only a slip can mean.
TOO_LARGE = [
    edit(SCALE, lambda c: c.family["optimiser"].update(learning_rate=1e20), "learning_rate: found 1e+20", "to 1000"),
    edit(
        SCALE, lambda c: c.family["tokenizer"].update(steps=10**10), "tokenizer.steps: found 10000000000", "to 1000000"
    ),
    edit(SCALE, lambda c: c.family["tokenizer"].update(steps=1e20), "tokenizer.steps: found 1e+20", "a whole number"),
    edit(SCALE, lambda c: c.family["tokenizer"].update(block_channels=[8] * 11), "block_channels: found", "10 at most"),
    edit(SCALE, lambda c: c.family["models"]["mu"].update(depth=10**6), "mu.depth: found 1000000", "to 100000"),
    edit(
        SCALE, lambda c: c.family["presets"]["headline"].update(samples=10**10), "headline.samples: found 1", "to 10000"
    ),
    edit(SCALE, lambda c: c.family.update(milestones=[2, 10**7]), "milestones.2: found 10000000", "to 1000000"),
    edit(SCALE, lambda c: c.family.update(stretch={"stop": 1e-9}), "stretch.stop: found 1e-09", "equal to 0.001"),
    edit(RUNS, lambda c: c.rows["guided"].update(weight=1e20), "guided.weight: found 1e+20", "to 1000000"),
    edit(RUNS, lambda c: c.rows["guided"].update(stop=10**9), "guided.stop: found 1000000000", "to 1000000"),
    edit(RUNS, lambda c: c.rows["guided"].update(teacher=f"aligned@{10**6}"), "guided.teacher: found", "<run>@<epoch>"),
    edit(RUNS, lambda c: c.rows["guided"].update(teacher="aligned@04"), "guided.teacher: found", "<run>@<epoch>"),
    edit(
        RUNS,
        lambda c: c.rows["guided"]["method"].update(guidance_scale=1e20),
        "guidance_scale: found 1e+20",
        "to 1000000",
    ),
    edit(CONFIG, lambda c: c.settings.update(seeds=10**17), "seeds: found 100000000000000000", "equal to 1000"),
    edit(CONFIG, lambda c: c.settings.update(claim_seeds=1001), "claim_seeds: found 1001", "equal to 1000"),
    edit(
        RUNS,
        lambda c: c.rows.update({f"r{i}": {"like": f"r{i + 1}"} for i in range(30)} | {"r30": {"like": "plain"}}),
        "r0.like: found 'r1'",
        "at most 20 entries like one another",
    ),
    edit(
        RUNS,
        lambda c: c.rows.update(
            {f"r{i}": {"like": "guided", "weight": 0.5 + i, "teacher": f"r{i + 1}@4"} for i in range(1, 30)}
            | {"r30": {"like": "guided", "weight": 0.1}}
        ),
        "r1.teacher: found 'r2@4'",
        "at most 20 generations of teachers",
    ),
]

# Another scale would take what this one replaces.
BEHIND_OVERRIDES = [
    edit(RUNS, lambda c: override(c, weight=1.0) or c.rows["guided"].update(weight=-1), "guided.weight: found -1"),
    edit(RUNS, lambda c: override(c, stop=2) or c.rows["guided"].update(stop="3"), "guided.stop: found '3'"),
    edit(
        RUNS,
        lambda c: override(c, method={"guiding_layer": 4}) or c.rows["guided"]["method"].update(guiding_layer="half"),
        "guided.method.guiding_layer: found 'half'",
        NO_LAYER,
    ),
    edit(
        RUNS,
        lambda c: (
            override(c, method={"name": "repa", "layer": 2}, teacher=None) or c.rows["guided"]["method"].pop("name")
        ),
        "guided.method.name: found None",
    ),
    edit(
        f"{RUNS} with the overrides of ",
        lambda c: (
            override(c, weight=-1) or c.family["overrides"].append(c.family["overrides"][0] | {"set": {"weight": 1}})
        ),
        "guided.weight: found -1",
    ),
]


@pytest.mark.parametrize(
    ("change", "file", "words"),
    [
        *(BEFORE_ANY_JOB + NAMES + TOO_LARGE + BEHIND_OVERRIDES),
        *(UNKNOWN_KEYS + MISSING_KEYS + WRONG_KINDS + WRONG_VALUES + UNKNOWN_NAMES),
        *(LAYERS_BEYOND + PAIRS + TEACHERS + ROWS + SIZES + TABLE_CASES),
    ],
)
def test_a_wrong_configuration_is_refused_in_words(configuration, change, file, words):
    change(configuration)
    line = refusal(configuration)
    assert line.startswith(f"{configuration.folder / file}")
    for word in words:
        assert word in line


def test_what_is_asked_for_does_not_hide_what_the_file_says(configuration):
    configuration.settings["seeds"] = 0
    with pytest.raises(UserError, match=r"config\.yaml: seeds: found 0"):
        configuration.plan(seeds=1)


def test_a_layer_that_only_an_override_makes_fit_is_right(configuration):
    configuration.rows["guided"]["method"]["guiding_layer"] = 8  # of 12, at another scale
    override(configuration, method={"guiding_layer": 4})
    assert configuration.project().rows["guided"].method["guiding_layer"] == 4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"seed": 4},
            r"--config: seed: unknown key; allowed: scale, .*, ranks, nodes, wall_time, budget, folder",
        ),
        ({"seeds": 4, "onyl": "x"}, r"--config: onyl: unknown key; allowed: .*only"),
        ({"seeds": "four"}, r"--config: seeds: found 'four'; allowed: a whole number"),
        ({"seeds": 10**20}, r"--config: seeds: found 10+; allowed: less than or equal to 1000"),
        ({"folder": 4}, r"--config: folder: found 4; allowed: text"),
        ({"budget": "24"}, r"--config: budget: found '24'; allowed: .* such as 90m, 24h or 7d"),
        ({"budget": 24}, r"--config: budget: found 24; allowed: text"),
    ],
)
def test_what_snakemake_is_asked_for_is_known(asked, words):
    with pytest.raises(UserError, match=words):
        check_asked(asked)


@pytest.mark.parametrize(("budget", "hours"), [("90m", 1.5), ("24h", 24), ("7d", 168), ("0.5h", 0.5), ("0h", 0)])
def test_a_budget_is_a_number_of_hours(configuration, budget, hours):
    assert hours_of(configuration.project(budget=budget).budget) == hours


@pytest.mark.parametrize("budget", ["", "h", "-1h", "1e3h", "24", "24 h", "1w", "٣h", "1h\n"])
def test_other_budgets_are_refused(configuration, budget):
    with pytest.raises(UserError, match=r"budget: found .*; allowed: .* such as 90m, 24h or 7d"):
        configuration.project(budget=budget)


def test_what_snakemake_is_not_asked_for_is_left_to_the_file():
    assert check_asked({}) == {}
    assert check_asked({"seeds": 4, "only": None, "folder": "mine"}) == {"seeds": 4, "folder": "mine"}


def test_the_configuration_of_these_tests_is_right(configuration):
    assert list(configuration.plan().project.rows) == ["plain", "aligned", "guided"]


def test_every_slip_of_a_record_is_said_a_line_each(configuration):
    configuration.rows["plain"].update(modle="mu", weight=-1)
    with pytest.raises(UserError) as caught:
        configuration.plan()
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["plain.weight", "plain.modle"]


# ----------------------------------------------------------------------------------------- YAML itself


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {like: plain}\nb: {like: plain}\na: {like: plain}\n", "line 3: not valid YAML: key 'a' stands twice"),
        ("a: {weight: 1, weight: 2}\n", "line 1: not valid YAML: key 'weight' stands twice"),
        ("a: [1\n", "not valid YAML"),
        ("a:\tb\n", "not valid YAML"),
        ("", "found nothing; allowed: a mapping"),
        ("- a\n", "found ('a',); allowed: a mapping"),
        ("a: {stop: 2026-13-45}\n", "a.stop: found '2026-13-45'; allowed: a whole number"),
        ("a: {stop: 0x10}\n", "a.stop: found '0x10'; allowed: a whole number"),
        ("a: {stop: 1_000}\n", "a.stop: found '1_000'; allowed: a whole number"),
        ("a: {weight: 12:30:45}\n", "a.weight: found '12:30:45'; allowed: a number"),
        (f"a:\n  stop: {400 * '9'}\n", "line 2: not valid YAML: a whole number of more than 18 digits"),
        (f"a: {{weight: 1{400 * '0'}.0}}\n", "a.weight: found inf; allowed: a finite number"),
        (f"a: {3000 * '['}\n", "line 1: not valid YAML: more than 30 lists or mappings inside of one another"),
        (f"{3000 * '- '}a\n", "line 1: not valid YAML: more than 30 lists or mappings"),
        ("a: &a\n  b: *a\n", "line 2: not valid YAML: the alias *a inside of what it stands for"),
        ("a: *b\n", "line 1: not valid YAML: found undefined alias 'b'"),
        ("a: !!python/object/apply:os.getcwd []\n", "the tag tag:yaml.org,2002:python/object/apply:os…; write"),
        ("a: !!int x\n", "line 1: not valid YAML: the tag tag:yaml.org,2002:int; write the value without it"),
        ("a: !!set {b}\n", "the tag tag:yaml.org,2002:set"),
        ("a: {<<: {model: mu}}\n", "a.<<: unknown key"),
        ("? [a]\n: b\n", "line 1: not valid YAML: a list or a mapping as a key"),
        ('a: {model: "\\0"}\n', "line 1: not valid YAML: the character '\\x00', which cannot be printed"),
        ('a: {model: "\\ud800"}\n', "the character '\\ud800', which cannot be printed"),
        ("a: \0\n", "not valid YAML: unacceptable character #x0000"),
        ("a: {}\n---\nb: {}\n", "line 2: not valid YAML: but found another document"),
        (f"a: {{model: {600_000 * 'x'}}}\n", "found more than 500000 bytes"),
        (f"a: {{model: {20_000 * 'x'}}}\n", "a.model: found 'xxx"),
        (f"a: &a [{'1,' * 400}]\nb: [{'*a,' * 300}]\n", "line 2: not valid YAML: more than 100000 values"),
    ],
)
def test_malformed_yaml_is_refused_with_its_line(configuration, text, words):
    path = configuration.write() / "runs.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_project(configuration.folder)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


LAUGHS = [f"{b}: &{b} [{', '.join(9 * [f'*{a}'])}]" for a, b in pairwise("abcdefghi")]


@pytest.mark.parametrize("file", ["config.yaml", "runs.yaml", "tables.yaml", "scales/tiny.yaml"])
def test_a_kilobyte_of_nested_aliases_is_refused_at_once(configuration, file):
    path = configuration.write() / file
    path.write_text("\n".join(["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]", *LAUGHS]))
    assert path.stat().st_size < 1000
    began = time.process_time()
    with pytest.raises(UserError, match=r"line 6: not valid YAML: more than 100000 values") as caught:
        load_project(configuration.folder)
    assert time.process_time() - began < 2
    assert len(str(caught.value)) < 500


def test_aliases_may_stand_for_what_is_complete(configuration):
    path = configuration.write() / "runs.yaml"
    path.write_text(
        path.read_text() + "more: &more {like: plain, method: {name: repa, layer: 1}, weight: 1}\nless: *more\n"
    )
    rows = load_project(configuration.folder).rows
    assert rows["more"] == rows["less"]


def test_messages_are_short_whatever_was_found(configuration):
    configuration.rows["plain"].update({f"key-{i}-{'x' * 500}": ["y" * 500] * 10 for i in range(40)})
    configuration.rows["plain"]["model"] = {f"{i}": ["z" * 500] * 10 for i in range(10)}
    with pytest.raises(UserError) as caught:
        configuration.plan()
    assert str(caught.value).splitlines()[-1].endswith("runs.yaml: and 36 more")
    assert len(str(caught.value)) < 2000


def test_yaml_of_1_2_knows_one_word_for_each_truth(configuration):
    configuration.family["average"] = {"warmup": True}
    path = configuration.write() / "scales" / "tiny.yaml"
    path.write_text(path.read_text().replace("warmup: true", "warmup: yes"))
    with pytest.raises(UserError, match=r"average\.warmup: found 'yes'; allowed: true or false"):
        load_project(configuration.folder)


def test_what_the_system_refuses_is_not_called_damaged(configuration):
    """It is an OSError with its number, which the commands turn into a sentence."""
    configuration.write()
    with pytest.raises(OSError, match="too long") as caught:
        load_project(configuration.folder, scale=f"{'x' * 400}.yaml")
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_pipe_or_a_folder_is_not_waited_for(configuration):
    folder = configuration.write()
    (folder / "runs.yaml").unlink()
    os.mkfifo(folder / "runs.yaml")
    with pytest.raises(UserError, match=r"runs\.yaml: a pipe, where a file is wanted"):
        load_project(folder)


def test_files_that_are_missing_or_no_text_are_named(configuration, tmp_path):
    with pytest.raises(UserError, match=r"nowhere/config\.yaml: no such file"):
        load_project(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"own\.yaml: no such file"):
        configuration.project(scale=str(tmp_path / "own.yaml"))
    (configuration.write() / "runs.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"runs\.yaml: cannot be read as text"):
        load_project(configuration.folder)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4e-3", 0.004), ("1E2", 100.0), (".5", 0.5), ("2.", 2.0), ("+1.5e+1", 15.0), ("3", 3.0)],
)
def test_numbers_are_those_of_yaml_1_2(configuration, text, value):
    """PyYAML itself takes 4e-3 for text."""
    path = configuration.write() / "scales" / "tiny.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.001", f"learning_rate: {text}"))
    family = load_project(configuration.folder).scale.families["small"]
    assert family.optimiser.learning_rate == value


# --------------------------------------------------------------------------------------- what rows mean


def test_like_lays_single_settings_of_one_method_over_anothers(configuration):
    configuration.rows["more"] = {"like": "guided", "method": {"guided_layer": 2}, "stop": None}
    row = configuration.project().rows["more"]
    assert (row.method["guided_layer"], row.method["guiding_layer"], row.method["guidance_scale"]) == (2, 4, 30.0)
    assert (row.stop, row.weight, row.teacher) == (None, 0.5, "aligned@4")


def test_another_method_starts_from_nothing(configuration):
    configuration.rows["more"] = {"like": "guided", "method": {"name": "repa", "layer": 2}, "teacher": None}
    assert configuration.project().rows["more"].method == {"name": "repa", "layer": 2}


@pytest.mark.parametrize(
    ("depth", "fraction", "layer"),
    [
        (12, "n/6", 2),  # the paper's blocks: B, L and XL
        (24, "n/6", 4),
        (28, "n/6", 5),
        (12, "n/2", 6),
        (12, "2n/3", 8),
        (24, "2n/3", 16),
        (28, "2n/3", 19),
        (28, "n/2", 14),
        (5, "n/2", 3),  # half up
        (12, 12, 12),
        (12, "n/1", 12),
    ],
)
def test_fractions_of_the_depth(configuration, depth, fraction, layer):
    configuration.family["models"]["mu"]["depth"] = depth
    configuration.rows["aligned"]["method"]["layer"] = fraction
    assert configuration.project().rows["aligned"].method["layer"] == layer


def test_overrides_of_a_scale_are_laid_over_the_rows_that_they_match(configuration):
    configuration.family["overrides"] = [
        {"rows": "a*", "set": {"method": {"layer": "n/2"}, "weight": 0.25}, "reason": "a small model"}
    ]
    rows = configuration.project().rows
    defaults = {"target": "z", "head": "mlp", "t_window": (0.0, 1.0), "window": "mask"}
    assert rows["aligned"].method == {"name": "vae_align", "layer": 3, **defaults}
    assert rows["aligned"].weight == 0.25
    assert rows["guided"].weight == 0.5


def test_layers_in_pairs_are_fractions_of_the_depth_too(configuration):
    configuration.rows["aligned"]["method"] = {"name": "layersync", "pairs": [["n/3", "2n/3"], [1, "n/2"]]}
    assert configuration.project().rows["aligned"].method == {"name": "layersync", "pairs": ((2, 4), (1, 3))}


def test_a_layer_of_the_encoder_is_no_fraction_of_the_student(configuration):
    method = {"name": "haste", "layer": "n/2", "attention_pairs": [["n/3", 9], ["n/2", 10]]}
    configuration.rows["aligned"]["method"] = method
    resolved = configuration.project().rows["aligned"].method
    assert (resolved["layer"], resolved["attention_pairs"]) == (3, ((2, 9), (3, 10)))


def test_a_row_says_epochs_and_its_method_gets_steps(configuration):
    configuration.rows["aligned"]["method"] = SRA
    plan = configuration.plan()
    method = plan.project.rows["aligned"].method
    assert (method["fade_after"], method["fade_tenfold"], method["time_gap"]) == (30, 200, 0.2)
    configuration.family["steps_per_epoch"] = 20  # the recipe, and so the run, is another one
    assert configuration.plan().run("aligned", 0).id != plan.run("aligned", 0).id
    assert configuration.plan().run("plain", 0).id == plan.run("plain", 0).id


def test_scale_and_seeds_may_be_asked_for(configuration, tmp_path):
    folder = configuration.write()
    own = tmp_path / "own.yaml"
    own.write_text((folder / "scales" / "tiny.yaml").read_text().replace("name: tiny", "name: own"))
    project = load_project(folder, scale=str(own), seeds=3)
    assert (project.scale.name, project.seeds, project.scale_file) == ("own", 3, own)
    assert load_project(folder).scale.name == "tiny"


def test_records_are_frozen(configuration):
    row = configuration.project().rows["plain"]
    with pytest.raises(ValueError, match="frozen"):
        row.weight = 1.0
