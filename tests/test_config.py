"""A wrong configuration is refused with file, key, value and what is allowed; a right one says what it means."""

import pytest

from selftrans.errors import UserError
from selftrans.loading import load_project


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
        LAYERS,
    )
    for layer in (0, 7, -1, 4.0, True, "7n/6", "n/20", "half", "4", None)
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
        ([[1, [2, 3]]], "pairs.1.2: found (2, 3)", LAYERS),
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


@pytest.mark.parametrize(
    ("change", "file", "words"),
    [
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
    ],
)
def test_malformed_yaml_is_refused_with_its_line(configuration, text, words):
    path = configuration.write() / "runs.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_project(configuration.folder)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


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
