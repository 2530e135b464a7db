"""A run's identity is its recipe, all of it and nothing else; its milestones, and the backbone it trains."""

import pytest
import yaml

from selftrans.config.families import (
    NOT_OF_THE_IMAGES,
    Average,
    ClassifierRecipe,
    Data,
    Family,
    Model,
    Optimiser,
    TokenizerRecipe,
)
from selftrans.config.reading.project import load_project
from selftrans.config.rows import Row
from selftrans.config.signatures import signature
from selftrans.errors import UserError
from selftrans.plan.plan import Plan


def ids(configuration, **asked):
    """{(row, seed): the run's folder}."""
    return {(run.name, run.seed): run.id for run in configuration.plan(**asked).runs.values()}


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
        "middle_attention": False,
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
    "data": {"size": (32, ALL)},
    "tokenizer": {
        "block_channels": ([8, 16], ALL),
        "latent_channels": (2, ALL),
        "layers_per_block": (2, ALL),
        "norm_groups": (4, ALL),
        "middle_attention": (True, ALL),
        "steps": (6, ALL),
        "batch_size": (16, ALL),
        "learning_rate": (0.002, ALL),
        "kl_weight": (0.1, ALL),
        "l1_weight": (0.1, ALL),
        "seed": (1, ALL),
        "moments": ("float16", ALL),
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
        "t_law_until": (4, ALL),
        "cosine_weight": (1.0, ALL),
        "flip": (True, ALL),
        "precision": ("bfloat16", ALL),
        "compile": (True, ALL),
        "teacher_precision": ("float8", GUIDED | OF_REPA),
        "draws": ("cuda", ALL),
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
        "data": {"source", "classes", "name", "only", "held_out", *NOT_OF_THE_IMAGES},  # those of files: below
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
    elsewhere |= {"stretch", "overrides", "aliases", "second_extractor", "reference", "micro_batch", "latents"}
    assert {*FIELDS["family"], *(set(records) - {"model"}), *elsewhere} == set(Family.model_fields)
    assert {*FIELDS["guided"], "family", "model", "method", "published"} == set(Row.model_fields)


FILES = {"source": "images", "name": "birds", "path": "somewhere/birds", "size": 16, "classes": 3}


@pytest.mark.parametrize(
    ("field", "value", "differs"),
    [
        ("name", "fish", True),
        ("size", 32, True),
        ("classes", 4, True),
        ("only", ["jay", "owl", "wren"], True),
        ("held_out", 0.1, True),
        ("path", "elsewhere", False),
        ("max_broken", 0.5, False),
        ("stored", "compressed", False),
        ("shard", 100, False),
        ("parts", 4, False),
    ],
)
def test_images_are_their_name_and_which_of_them_there_are_wherever_they_lie(configuration, field, value, differs):
    configuration.family["data"] = FILES
    before = configuration.plan()
    configuration.family["data"] = FILES | {field: value}
    after = configuration.plan()
    assert before.keys["small"].data.startswith("birds-")
    assert (before.keys["small"] != after.keys["small"]) is differs
    assert (before.run("plain", 0).id != after.run("plain", 0).id) is differs


def test_a_published_vae_is_one_file_and_latents_of_different_images_are_two(configuration):
    vae = {"published": "sd-vae-ft-mse", "weights": "vae.safetensors"}
    configuration.family |= {"tokenizer": vae}
    configuration.scale["families"]["large"] = configuration.family | {"data": {"source": "digits", "size": 32}}
    keys = configuration.plan().keys
    assert keys["small"].tokenizer == keys["large"].tokenizer
    assert keys["small"].latents != keys["large"].latents
    for key, value in {"normalisation": "measured", "moments": "float16"}.items():
        configuration.family["tokenizer"] = vae | {key: value}
        assert configuration.plan().keys["small"].tokenizer == keys["small"].tokenizer
        assert configuration.plan().keys["small"].latents != keys["small"].latents
    configuration.family["tokenizer"] = vae | {"weights": "elsewhere/vae.safetensors"}
    assert configuration.plan().keys["small"] == keys["small"]


def test_another_decoder_makes_other_images_of_the_same_latents_and_weights(configuration):
    configuration.family["tokenizer"] = {"published": "sd-vae-ft-mse", "weights": "mse.safetensors"}
    before = configuration.plan()
    configuration.family["tokenizer"] |= {"decoder": "sd-vae-ft-ema", "decoder_weights": "ema.safetensors"}
    after = configuration.plan()
    assert after.keys["small"].tokenizer != before.keys["small"].tokenizer
    assert after.keys["small"].latents == before.keys["small"].latents
    runs = [plan.run("plain", 0) for plan in (before, after)]
    assert runs[0].id == runs[1].id
    keys = [run.preset_key("headline") for run in runs]
    assert keys[0] != keys[1]
    assert runs[1].preset_named(keys[1]) == "headline"


def test_latents_that_are_there_already_are_others_wherever_they_lie(configuration):
    configuration.family |= {"tokenizer": {"published": "sd-vae-ft-mse", "weights": "vae.safetensors"}}
    before = configuration.plan().keys["small"]
    configuration.family["latents"] = {"layout": "repa", "folder": "vae-sd"}
    after = configuration.plan().keys["small"]
    assert after.latents != before.latents
    assert after.tokenizer == before.tokenizer
    configuration.family["latents"] = {"layout": "repa", "folder": "elsewhere"}
    assert configuration.plan().keys["small"] == after
    configuration.family["latents"] = {"layout": "lightningdit", "folder": "vae-sd"}
    assert configuration.plan().keys["small"].latents != after.latents


def test_a_vae_that_is_trained_here_has_no_latents_yet(configuration):
    configuration.family["latents"] = {"layout": "repa", "folder": "vae-sd"}
    said = r"families\.small\.latents: found 'vae-sd'; allowed: nothing, since the VAE is trained here"
    with pytest.raises(UserError, match=said):
        configuration.plan()


def test_a_published_reference_is_that_of_inception_alone(configuration):
    configuration.family |= {
        "extractor": {"published": "inception", "weights": "inception.pth"},
        "second_extractor": {"published": "dinov2-l", "weights": "dinov2.safetensors"},
    }
    own = configuration.plan().keys["small"]
    configuration.family["reference"] = {"name": "adm-imagenet256", "file": "adm.npz"}
    adm = configuration.plan().keys["small"]
    assert adm.extractor != own.extractor
    assert adm.second_extractor == own.second_extractor
    configuration.family["reference"]["file"] = "elsewhere.npz"
    assert configuration.plan().keys["small"] == adm


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


def test_milestones_are_the_grid_and_the_rows_stop(configuration):
    configuration.every_milestone = True
    plan = configuration.plan()
    assert plan.run("plain", 0).milestones == {20: 2, 40: 4, 60: 6, 80: 8}
    guided = plan.run("guided", 0)
    assert guided.milestones == {20: 2, 30: 3, 40: 4, 60: 6, 80: 8}
    assert [guided.milestone_before(step) for step in guided.milestones] == [None, 20, 30, 40, 60]
    assert [guided.is_guided(step) for step in guided.milestones] == [True, True, False, False, False]
    assert all(plan.run("aligned", 0).is_guided(step) for step in (20, 40, 60, 80))
    assert not plan.run("plain", 0).is_guided(20)


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
