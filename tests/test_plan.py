"""What the paper ran is what the plan holds; a run's identity is its recipe, all of it and nothing else."""

import csv
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from selftrans.config import (
    Average,
    ClassifierRecipe,
    Data,
    Family,
    Model,
    Optimiser,
    Row,
    TokenizerRecipe,
)
from selftrans.errors import UserError
from selftrans.loading import load_project
from selftrans.plan import Plan, Reference
from selftrans.signatures import signature

CONFIG = Path(__file__).parent.parent / "config"
SMOKE = Path(__file__).parent / "smoke" / "config" / "scales" / "smoke.yaml"
SCALES = {path.stem: path for path in [*sorted((CONFIG / "scales").glob("*.yaml")), SMOKE]}
STEPS_PER_EPOCH = 5000  # of the paper, at a batch of 256: 80 epochs are 400K steps


def paper(name):
    with (CONFIG / "paper" / name).open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------------- the paper's tables


@pytest.fixture(scope="module")
def shipped():
    """The shipped configuration at each scale, with two seeds."""
    asked = {"seeds": 2, "claim_seeds": 2}
    return {scale: Plan(load_project(CONFIG, scale=str(path), **asked)) for scale, path in SCALES.items()}


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_of_every_table_resolves(shipped, scale):
    plan = shipped[scale]
    for table in plan.project.tables.values():
        metrics = plan.metrics_of(table)
        assert len(set(metrics)) == len(metrics)
        for path, row in zip(metrics[: 2 * len(table.trained) : 2], table.trained, strict=True):
            run, step = plan.milestone(row.run, seed=0)
            assert path.name == f"{run.id}.step-{step}.{row.preset or table.preset}.json"
            assert step in run.milestones


@pytest.mark.parametrize("scale", SCALES)
def test_every_teacher_is_a_milestone_before_its_student(shipped, scale):
    """Runs in the order of their teachers' depth: a DAG, without a second look at the cycle check."""
    runs = shipped[scale].runs
    done = set()
    while len(done) < len(runs):
        ready = {key for key, run in runs.items() if run.teacher is None or run.teacher.run.id in done} - done
        assert ready
        done |= ready
    for run in runs.values():
        assert run.teacher is None or run.teacher.step in run.teacher.run.milestones
        assert run.teacher is None or run.teacher.run.seed == run.seed


GUIDING_MODELS = {"align": "vae_align", "ori": None, "repa": "repa"}


@pytest.mark.parametrize("scale", SCALES)
def test_table_5_is_the_papers_in_its_order(shipped, scale):
    plan = shipped[scale]
    rows, lines = plan.project.tables["table5"].rows, paper("table5.csv")
    assert len(rows) == len(lines) == 18
    for row, line in zip(rows, lines, strict=True):
        assert row.run.endswith("@80")
        run, _ = plan.milestone(row.run, seed=0)
        method = run.row.method
        assert method["name"] == "self_transcendence"
        assert (method["guiding_layer"], method["guided_layer"]) == (
            int(line["teacher_layer"]),
            int(line["student_layer"]),
        )
        assert method["guidance_scale"] == float(line["omega"])
        assert run.row.weight == float(line["lambda"])
        epoch = Reference.parse(run.row.teacher).epoch
        assert f"{epoch * STEPS_PER_EPOCH // 1000}K" == line["teacher_iters"]
        teacher = run.teacher.run.row.method
        assert (teacher["name"] if teacher else None) == GUIDING_MODELS[line["teacher"]]


@pytest.mark.parametrize("scale", SCALES)
def test_table_4_is_the_papers_in_its_order(shipped, scale):
    plan = shipped[scale]
    rows, lines = plan.project.tables["table4"].rows, paper("table4.csv")
    assert len(rows) == len(lines) == 4
    for row, line in zip(rows, lines, strict=True):
        run, _ = plan.milestone(row.run, seed=0)
        trained = [run, *([run.teacher.run] if run.teacher else [])]
        methods = {found.row.method["name"] for found in trained if found.row.method}
        assert ("vae_align" in methods) == bool(int(line["vae_align"]))
        assert ("self_transcendence" in methods) == bool(int(line["self_guided"]))


@pytest.mark.parametrize("scale", SCALES)
def test_table_1_is_the_papers_in_its_order(shipped, scale):
    plan = shipped[scale]
    rows, lines = plan.project.tables["table1"].rows, paper("table1.csv")
    assert len(rows) == len(lines) == 28
    methods = {"REPA": "repa", "Disperse": "dispersive", "LayerSync": "layersync", "VAE-align": "vae_align"}
    methods |= {"ST": "self_transcendence"}
    models = {"SiT": "sit", "LightningDiT": "ldit", "1": "1", "2": "2"}
    for row, line in zip(rows, lines, strict=True):
        run, _ = plan.milestone(row.run, seed=0)
        name, _, method = line["model"].partition("+")
        kind, size = name.split("-")
        assert run.row.model == f"{models[kind]}-{size.replace('/', '').lower()}"
        assert (run.row.method or {}).get("name") == methods.get(method)
        assert row.run.endswith(f"@{line['epochs']}")
        assert row.paper["fid"] == float(line["fid"])


def test_the_layers_of_table_1_are_the_published_ones(shipped):
    plan = shipped["demo"]
    layers = {name: plan.run(name, 0).row.method for name in plan.project.rows}
    assert [layers[f"sit-{size}-repa"]["layer"] for size in ("b2", "l2", "xl2")] == [4, 8, 8]
    assert [layers[f"sit-{size}-layersync"]["pairs"] for size in ("l2", "xl2")] == [((8, 16),), ((8, 16),)]
    sra = [layers[f"sit-{size}-sra"] for size in ("b2", "l2", "xl2")]
    assert [(method["layer"], method["teacher_layer"]) for method in sra] == [(3, 8), (6, 16), (8, 20)]
    ours = [layers[f"{name}-st"] for name in ("sit-b2", "sit-l2", "sit-xl2", "ldit-b1", "ldit-xl1")]
    guided = [(method["guiding_layer"], method["guided_layer"]) for method in ours]
    assert guided == [(8, 6), (16, 12), (19, 14), (8, 6), (19, 14)]
    assert [method["guidance_scale"] for method in ours] == [30, 30, 30, 10, 10]


@pytest.mark.parametrize("scale", SCALES)
def test_what_tables_4_and_5_share_is_trained_once(shipped, scale):
    """The last rows of Table 4 are the default and M_ori of Table 5, with the same numbers in the paper."""
    tables = shipped[scale].project.tables
    runs = {name: [row.run for row in tables[name].rows] for name in ("table4", "table5")}
    values = {name: [(line["fid"], line["is"]) for line in paper(f"{name}.csv")] for name in runs}
    for own in (2, 3):
        assert runs["table5"].index(runs["table4"][own]) == values["table5"].index(values["table4"][own])


# ------------------------------------------------------------------------------------------------ identity


def ids(configuration, **asked):
    """{(row, seed): the run's folder}."""
    return {(run.name, run.seed): run.id for run in configuration.plan(**asked).runs.values()}


@pytest.fixture
def with_repa(configuration):
    """A fourth row, which learns from an encoder, and a fifth, guided by it with everything else as in the third."""
    configuration.rows["repa"] = {"like": "aligned", "method": {"name": "repa", "layer": 2}}
    configuration.rows["guided-repa"] = {"like": "guided", "teacher": "repa@4"}
    return configuration


def write_defaults_out(c):
    c.rows["guided"] |= {"teacher_weights": "ema"}
    c.rows["guided"]["method"] |= {"normalisation": "none", "distance": "l2", "dropped_labels": "restored"}
    c.rows["aligned"]["method"] |= {"target": "z", "head": "mlp"}
    for row in ("guided", "aligned"):
        c.rows[row]["method"] |= {"t_window": [0.0, 1.0], "window": "mask"}
    c.rows["plain"] |= {"method": None, "weight": None, "stop": None, "teacher": None}
    c.family["models"]["mu"] |= {"patch_size": 2, "qk_norm": False, "backbone": "sit", "projector_width": 2048}
    c.family["optimiser"] |= {"warmup_steps": 0, "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 1.0}
    c.family["data"] |= {"classes": 10}
    c.family["tokenizer"] |= {
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_groups": 8,
        "batch_size": 32,
        "seed": 0,
    }
    c.family["encoder"] |= {"batch_size": 64, "seed": 0}
    c.family |= {"average": {"decay": 0.9999}, "label_dropout": 0.1, "t_law": "uniform", "stretch": {}}


def write_numbers_otherwise(c):
    c.rows["guided"]["method"] |= {"guidance_scale": 30, "guided_layer": 3, "guiding_layer": 4}
    c.rows["aligned"] |= {"weight": 5e-1}
    c.family["tokenizer"] |= {"kl_weight": 0}


SAME = {
    "rows in another order": lambda c: setattr(c, "rows", dict(reversed(c.rows.items()))),
    "keys in another order": lambda c: setattr(c, "rows", {k: dict(reversed(r.items())) for k, r in c.rows.items()}),
    "like written out": lambda c: c.rows.update(guided=c.rows["plain"] | {**c.rows["guided"], "like": "plain"}),
    "fields at their default": write_defaults_out,
    "whole numbers for floats": write_numbers_otherwise,
    "another row": lambda c: c.rows.update(more={"like": "guided", "weight": 0.1}),
    "another milestone": lambda c: c.family.update(milestones=[1, 2, 4, 5, 6, 8]),
    "a longer run": lambda c: c.family.update(milestones=[2, 4, 6, 8, 100]),
    "another table": lambda c: c.tables.update(more=c.tables["main"] | {"title": "More"}),
    "no table": lambda c: c.tables.clear(),
    "another preset": lambda c: c.family["presets"]["headline"].update(steps=3, samples=9),
    "another extractor": lambda c: c.family["extractor"].update(steps=99),
    "other threads": lambda c: c.scale.update(threads={"train": 2}),
    "other words": lambda c: c.scale.update(description="in other words", notes={"main": "a note"}),
    "another bar": lambda c: c.family["tokenizer"].update(max_test_mse=0.5),
    "another bar of the encoder": lambda c: c.family["encoder"].update(min_test_accuracy=0.1),
    "another family": lambda c: c.scale["families"].update(large=c.family | {"batch_size": 8}),
    "stretched by one": lambda c: c.family.update(stretch={"teacher": 1, "stop": 1, "reason": "none"}),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_what_does_not_touch_the_weights_keeps_every_run(with_repa, change):
    before = ids(with_repa)
    change(with_repa)
    after = ids(with_repa)
    assert {key: after[key] for key in before} == before


def test_a_recipe_holds_all_of_this_and_no_defaults(configuration):
    """A field that is new, and at its default, must not rename what was trained before there was such a field."""
    plan = configuration.plan()
    guided, aligned = plan.run("guided", 0), plan.run("aligned", 0)
    assert guided.recipe == {
        "recipe_version": 1,
        "seed": 0,
        "model": {"depth": 6, "width": 16, "heads": 2},
        "latents": plan.keys["small"].tokenizer,
        "batch_size": 4,
        "optimiser": {"learning_rate": 0.001},
        "average": {},
        "label_dropout": 0.1,
        "t_law": "uniform",
        "method": {
            "name": "self_transcendence",
            "guided_layer": 3,
            "guiding_layer": 4,
            "guidance_scale": 30.0,
            "projector_width": 2048,
        },
        "weight": 0.5,
        "stop": 30,
        "teacher": [aligned.id.split("-")[-1], 40, "ema"],
    }
    assert plan.run("plain", 0).recipe["method"] is None


def test_comments_and_layout_keep_every_run(with_repa):
    before = ids(with_repa)
    folder = with_repa.write()
    for name in ("runs.yaml", "scales/tiny.yaml"):
        path = folder / name
        value = yaml.safe_load(path.read_text())
        path.write_text(f"# a comment\n{yaml.safe_dump(value, default_flow_style=True, width=40)}# another\n")
    runs = Plan(load_project(folder)).runs.values()
    assert {(run.name, run.seed): run.id for run in runs} == before


def test_more_seeds_keep_the_runs_of_the_first(with_repa):
    before, after = ids(with_repa), ids(with_repa, seeds=3)
    assert len(set(after.values())) == 3 * len(before)
    assert {key: after[key] for key in before} == before


ALL = {"plain", "aligned", "guided", "repa", "guided-repa"}
METHODS = ALL - {"plain"}
GUIDED = {"guided", "guided-repa"}
OF_ALIGNED = {"aligned", "guided", "repa", "guided-repa"}  # rows of these tests that are like it
OF_REPA = {"repa", "guided-repa"}

# {where: {field: (another value, the rows whose weights depend on it)}}
FIELDS = {
    "data": {"size": (32, ALL), "classes": (5, ALL)},
    "tokenizer": {
        "block_channels": ([8, 16], ALL),
        "latent_channels": (2, ALL),
        "layers_per_block": (2, ALL),
        "norm_groups": (4, ALL),
        "steps": (6, ALL),
        "batch_size": (16, ALL),
        "learning_rate": (0.002, ALL),
        "kl_weight": (0.1, ALL),
        "l1_weight": (0.1, ALL),
        "seed": (1, ALL),
    },
    "encoder": {
        "name": ("lens", OF_REPA),
        "steps": (6, OF_REPA),
        "batch_size": (32, OF_REPA),
        "learning_rate": (0.002, OF_REPA),
        "seed": (1, OF_REPA),
    },
    "model": {
        "depth": (9, ALL),
        "width": (32, ALL),
        "heads": (4, ALL),
        "patch_size": (4, ALL),
        "qk_norm": (True, ALL),
        "projector_width": (64, METHODS),
        "backbone": ("lightningdit", ALL),
    },
    "optimiser": {
        "learning_rate": (0.002, ALL),
        "warmup_steps": (10, ALL),
        "betas": ([0.9, 0.95], ALL),
        "weight_decay": (0.01, ALL),
        "clip": (2.0, ALL),
    },
    "average": {"decay": (0.99, ALL), "warmup": (True, ALL)},
    "family": {
        "batch_size": (8, ALL),
        "label_dropout": (0.2, ALL),
        "t_law": ("logit_normal", ALL),
        "cosine_weight": (1.0, ALL),
    },
    "aligned": {"weight": (0.1, OF_ALIGNED), "stop": (2, OF_ALIGNED)},
    "guided": {
        "weight": (0.1, GUIDED),
        "stop": (2, GUIDED),
        "teacher": ("aligned@6", {"guided"}),
        "teacher_weights": ("online", GUIDED),
        "initial_weights": ("own", GUIDED),
    },
    "vae_align": {
        "layer": (2, {"aligned", "guided"}),
        "target": ("v", {"aligned", "guided"}),
        "head": ("normed", {"aligned", "guided"}),
        "t_window": ([0.4, 0.7], {"aligned", "guided"}),
        "window": ("scale", {"aligned", "guided"}),
    },
    "repa": {"layer": (3, OF_REPA)},
    "self_transcendence": {
        "guided_layer": (2, GUIDED),
        "guiding_layer": (5, GUIDED),
        "guidance_scale": (15.0, GUIDED),
        "normalisation": ("standardised", GUIDED),
        "distance": ("cosine", GUIDED),
        "dropped_labels": ("kept", GUIDED),
        "t_window": ([0.0, 0.7], GUIDED),
        "window": ("scale", GUIDED),
    },
}


def section(c, name):
    """The mapping of the configuration that holds a section's fields."""
    places = {
        "family": c.family,
        "model": c.family["models"]["mu"],
        "vae_align": c.rows["aligned"]["method"],
        "repa": c.rows["repa"]["method"],
        "self_transcendence": c.rows["guided"]["method"],
    }
    if name in c.rows and name not in places:
        return c.rows[name]
    return places[name] if name in places else c.family.setdefault(name, {})


@pytest.mark.parametrize(
    ("name", "field", "value", "changed"),
    [
        pytest.param(name, field, value, changed, id=f"{name}.{field}")
        for name, fields in FIELDS.items()
        for field, (value, changed) in fields.items()
    ],
)
def test_what_touches_the_weights_makes_other_runs_of_those_rows_alone(with_repa, name, field, value, changed):
    before = ids(with_repa)
    section(with_repa, name)[field] = value
    after = ids(with_repa)
    assert {row for row, seed in before if after[row, seed] != before[row, seed]} == changed


def test_no_field_is_forgotten():
    """A new field of a recipe must be put into the list above, or here."""
    harmless = {
        "data": {"source"},  # one source so far
        "model": {"checkpoint_activations"},
        "tokenizer": {"max_test_mse"},
        "encoder": {"min_test_accuracy"},
    }
    records = {"data": Data, "tokenizer": TokenizerRecipe, "encoder": ClassifierRecipe, "model": Model}
    records |= {"optimiser": Optimiser, "average": Average}
    for name, record in records.items():
        assert set(FIELDS[name]) | harmless.get(name, set()) == set(record.model_fields)
    for name in ("vae_align", "repa", "self_transcendence"):
        assert set(FIELDS[name]) == set(signature(name).settings)
    elsewhere = {"models", "extractor", "presets", "steps_per_epoch", "milestones", "long_schedules", "sweeps"}
    elsewhere |= {"stretch", "overrides"}
    assert {*FIELDS["family"], *(set(records) - {"model"}), *elsewhere} == set(Family.model_fields)
    assert {*FIELDS["guided"], "family", "model", "method"} == set(Row.model_fields)


def test_the_seed_makes_another_run_and_another_teacher(configuration):
    plan = configuration.plan(seeds=2)
    first, second = plan.run("guided", 0), plan.run("guided", 1)
    assert first.id.startswith("guided-s0-")
    assert second.id.startswith("guided-s1-")
    assert first.id.split("-")[-1] != second.id.split("-")[-1]
    assert second.teacher.run is plan.run("aligned", 1)


def test_the_length_of_an_epoch_matters_where_a_step_does(configuration):
    """A run without stop or teacher is the same sequence of steps; only its milestones move."""
    before = ids(configuration)
    configuration.family["steps_per_epoch"] = 20
    after = ids(configuration)
    assert [after[key] == before[key] for key in before] == [True, True, False]


def test_a_renamed_teacher_keeps_its_students(configuration):
    before = ids(configuration)
    configuration.rows["stage-1"] = configuration.rows.pop("aligned")
    configuration.rows["guided"]["teacher"] = "stage-1@4"
    configuration.tables = {}
    after = ids(configuration)
    assert after["guided", 0] == before["guided", 0]
    assert after["stage-1", 0] == before["aligned", 0].replace("aligned", "stage-1")


def test_a_stretch_is_in_the_steps_of_the_recipe(configuration):
    configuration.family["stretch"] = {"teacher": 2, "stop": 2, "reason": "a small model"}
    run = configuration.plan().run("guided", 0)
    assert (run.teacher.epoch, run.teacher.step) == (8, 80)
    assert (run.stop_epoch, run.recipe["stop"]) == (6, 60)


def test_families_share_what_has_one_recipe(configuration):
    configuration.scale["families"]["large"] = configuration.family | {"batch_size": 8}
    configuration.scale["families"]["fine"] = configuration.family | {
        "data": {"source": "digits", "size": 32},
    }
    keys = configuration.plan().keys
    assert keys["large"] == keys["small"]
    for kind in ("data", "tokenizer", "extractor", "encoder"):
        assert getattr(keys["fine"], kind) != getattr(keys["small"], kind)


# ------------------------------------------------------------------------------------- milestones, paths


def test_milestones_are_the_grid_and_the_rows_stop(configuration):
    plan = configuration.plan()
    assert plan.run("plain", 0).milestones == {20: 2, 40: 4, 60: 6, 80: 8}
    guided = plan.run("guided", 0)
    assert guided.milestones == {20: 2, 30: 3, 40: 4, 60: 6, 80: 8}
    assert [guided.milestone_before(step) for step in guided.milestones] == [None, 20, 30, 40, 60]
    assert [guided.is_guided(step) for step in guided.milestones] == [True, True, False, False, False]
    assert all(plan.run("aligned", 0).is_guided(step) for step in (20, 40, 60, 80))
    assert not plan.run("plain", 0).is_guided(20)


def test_paths_say_what_they_hold(configuration):
    plan = configuration.plan()
    run = plan.run("guided", 0)
    aligned = plan.run("aligned", 0)
    assert plan.weights(run, 80) == Path(f"results/tiny/runs/{run.id}/step-80.ema.safetensors")
    assert plan.weights(run, 80, "online").name == "step-80.online.safetensors"
    assert plan.teacher_file(run.teacher) == Path(
        f"results/tiny/teachers/{aligned.id}.step-40.ema.layers-4.safetensors"
    )
    assert plan.metrics("guided@8", 0, "headline") == Path(f"results/tiny/metrics/{run.id}.step-80.headline.json")


def test_a_table_rests_on_vae_and_extractor_and_on_the_encoder_if_a_teacher_has_one(with_repa):
    with_repa.tables["main"]["rows"][2]["run"] = with_repa.tables["main"]["compare_with"] = "guided-repa@8"
    with_repa.tables["plain"] = with_repa.tables["main"] | {"compare_with": None}
    with_repa.tables["plain"]["rows"] = [{"label": str(i), "run": "plain@8"} for i in range(3)]
    plan = with_repa.plan()
    folders = {
        name: [path.parent.name for path in plan.reports_of(table)] for name, table in plan.project.tables.items()
    }
    assert folders == {"main": ["tokenizers", "extractors", "encoders"], "plain": ["tokenizers", "extractors"]}


def test_the_backbone_gets_the_size_of_the_latents(configuration):
    configuration.family["data"]["size"] = 64
    configuration.family["tokenizer"]["block_channels"] = [8, 8, 16]
    backbone = configuration.plan().run("plain", 0).backbone
    assert backbone == {
        "backbone": "sit",
        "depth": 6,
        "width": 16,
        "heads": 2,
        "patch_size": 2,
        "qk_norm": False,
        "input_size": 16,
        "channels": 4,
        "num_classes": 10,
    }


def test_a_family_is_found_by_what_it_rests_on(configuration):
    plan = configuration.plan()
    assert plan.family_of("tokenizer", plan.keys["small"].tokenizer) == "small"


# ------------------------------------------------------------------------------------------- references


@given(name=st.from_regex(r"[a-z0-9][a-z0-9.-]*", fullmatch=True), epoch=st.integers(0, 10**6))
def test_references_are_run_at_epoch(name, epoch):
    assert Reference.parse(f"{name}@{epoch}") == Reference(name, epoch)


@pytest.mark.parametrize("text", ["sit-b2", "sit-b2@", "sit-b2@eighty", "sit-b2@-1", "sit-b2@²", "a@b@80", ""])
def test_other_text_is_no_reference(text):
    with pytest.raises(UserError, match="is not a reference; write <run>@<epoch>, such as sit-b2@80"):
        Reference.parse(text)


def test_a_reference_to_nowhere_says_where_one_may_go(configuration):
    plan = configuration.plan()
    with pytest.raises(UserError, match="RUN@EPOCH: found 'plane@8'; allowed: <run>@<epoch> with <run> one of plain"):
        plan.milestone("plane@8", seed=0)
    with pytest.raises(UserError, match="RUN@EPOCH: found 'plain@7'; allowed: the milestones plain@2, plain@4"):
        plan.milestone("plain@7", seed=0)
    with pytest.raises(UserError, match=r"runs\.yaml: no row is called 'plane'; allowed: plain, aligned, guided"):
        plan.run("plane", seed=0)


# ------------------------------------------------------------------------------------- schedules and extent


def test_a_scale_may_compress_long_schedules(configuration):
    configuration.family.update(milestones=[2, 4, 6, 8, 100], long_schedules={100: 95})
    run = configuration.plan().run("plain", 0)
    assert run.milestones == {20: 2, 40: 4, 60: 6, 80: 8, 95: 100}
    assert run.milestone_before(95) == 80


@pytest.mark.parametrize("schedule", [{100: 80}, {100: 75}, {8: 15}])
def test_schedules_that_go_back_in_time_are_refused(configuration, schedule):
    configuration.family.update(milestones=[2, 4, 6, 8, 100], long_schedules=schedule)
    with pytest.raises(UserError, match=r"small\.long_schedules: .* allowed: more steps for more epochs"):
        configuration.plan()


def test_a_stretch_may_be_a_fraction_that_makes_whole_epochs(configuration):
    configuration.family["stretch"] = {"teacher": 1.5, "stop": 2.0, "reason": "small"}
    run = configuration.plan().run("guided", 0)
    assert (run.teacher.epoch, run.stop_epoch) == (6, 6)
    configuration.family["stretch"] = {"stop": 1.5, "reason": "small"}  # of a stop at 3
    with pytest.raises(UserError, match=r"stretch\.stop: found 1\.5; allowed: a factor that makes stop 3 a whole"):
        configuration.plan()


def test_only_keeps_the_rows_of_a_model_or_of_a_pattern(configuration):
    configuration.rows["small"] = {"like": "plain", "model": "nu"}
    configuration.tables["main"].pop("paper")
    configuration.tables["main"]["rows"].append({"label": "small", "run": "small@8"})
    kept = {}
    for only in ("nu", "plain", "*a*d, nu", "mu"):
        kept[only] = [row.run for row in configuration.plan(only=only).project.tables["main"].rows]
    everything = ["plain@8", "aligned@8", "guided@8"]
    assert kept == {"nu": ["small@8"], "plain": ["plain@8"], "*a*d, nu": ["aligned@8", "small@8"], "mu": everything}
    with pytest.raises(UserError, match="only: found 'sit'; allowed: models \\(mu, nu\\) or patterns"):
        configuration.plan(only="sit")


def test_a_row_keeps_its_line_of_the_paper_whatever_is_left_out(configuration):
    rows = configuration.plan(only="guided").project.tables["main"].rows
    assert [row.paper for row in rows] == [{"fid": 22.91, "is": 70.37}]


def test_a_sweep_repeats_each_row_for_every_scale_and_interval(configuration):
    configuration.family["presets"]["few"] = {"sampler": "euler_ode", "steps": 2, "samples": 4}
    configuration.family["sweeps"] = {"guide": {"preset": "few", "cfg_scale": [1.5, 4.0], "cfg_until": [0.7, 1.0]}}
    rows = [{"label": "ours", "run": "guided@8"}]
    configuration.tables["sweep"] = {"title": "x", "preset": "few", "sweep": "guide", "columns": [], "rows": rows}
    plan = configuration.plan()
    names = [f"guide-cfg{scale}-t{until}" for scale in ("1.5", "4") for until in ("0.7", "1")]
    assert [row.preset for row in plan.project.tables["sweep"].rows] == names
    preset = plan.run("guided", 0).family.presets["guide-cfg1.5-t0.7"]
    assert (preset.cfg_scale, preset.cfg_interval, preset.samples) == (1.5, (0.0, 0.7), 4)
    configuration.tables["sweep"]["sweep"] = "guid"
    with pytest.raises(UserError, match=r"sweep\.sweep: found 'guid'; allowed: guide"):
        configuration.plan()
    configuration.tables["sweep"]["sweep"] = "guide"
    configuration.family["sweeps"]["guide"]["preset"] = "fw"
    with pytest.raises(UserError, match=r"sweeps\.guide\.preset: found 'fw'; allowed: headline, few"):
        configuration.plan()


def test_a_table_needs_its_rows_what_they_are_compared_with_and_the_second_sampler_once(configuration):
    configuration.family["presets"]["second"] = {"sampler": "euler_maruyama_sde", "steps": 2, "samples": 8}
    configuration.tables["main"]["second_preset"] = "second"
    plan = configuration.plan(only="plain", seeds=2)
    names = [path.name for path in plan.metrics_of(plan.project.tables["main"])]
    runs = {(name, seed): plan.run(name, seed).id for name in ("plain", "guided") for seed in range(2)}
    headline = [f"{runs[name, seed]}.step-80.headline.json" for name in ("plain", "guided") for seed in range(2)]
    assert names == [*headline, f"{runs['plain', 0]}.step-80.second.json"]
