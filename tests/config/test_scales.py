"""What scales say: presets that share a name or stand for one another, and what the shipped ones hold."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from selftrans.config.reading.project import load_project
from selftrans.config.reading.publications import load_publications
from selftrans.errors import UserError
from selftrans.evaluation.inception import PUBLISHED_SHA256
from selftrans.methods.projector import projector
from selftrans.models.backbones import build_backbone
from selftrans.plan.outside import outside, require_outside
from selftrans.plan.plan import Plan, Probe
from selftrans.reporting.figures.registry import figures_of, inputs_of
from selftrans.reporting.remaining import Remaining
from workflow import snakemake

CONFIG = Path(__file__).parents[2] / "config"


# ------------------------------------------------------------------------------------------------------ presets


def test_an_alias_shares_files_and_counts_once(configuration):
    configuration.family["aliases"] = {"ablation": "headline"}
    configuration.tables["main"]["preset"] = "ablation"
    configuration.tables["main"]["rows"][0]["preset"] = "headline"
    plan = configuration.plan()
    metrics = plan.metrics_of(plan.project.tables["main"])
    assert len(set(metrics)) == len(metrics)
    assert all(".headline-" in path.name for path in metrics)
    assert {preset for _, _, preset in plan.evaluations_of(plan.project.tables["main"])} == {"headline"}


def claim(**fields):
    return {"says": "better", "source": "Table 1", "better": "aligned@8", "worse": "plain@8", **fields}


def test_a_claim_measures_runs_as_their_rows_of_its_table_do(configuration):
    presets = configuration.family["presets"]
    presets["own"] = presets["headline"] | {"cfg_scale": 2.0}
    configuration.tables["main"]["rows"][0]["preset"] = "own"
    configuration.claims = {"helps": claim(table="main"), "elsewhere": claim(), "said": claim(preset="own")}
    plan = configuration.plan()
    measured = plan.evaluations_of_claims()
    assert measured[:2] == [("aligned@8", 0, "headline"), ("plain@8", 0, "own")]
    assert measured[2:] == [("plain@8", 0, "headline"), ("aligned@8", 0, "own")]


def test_a_scale_without_the_preset_of_a_claims_row_is_refused(configuration):
    configuration.tables["main"]["rows"][0]["preset"] = "none"
    configuration.claims = {"helps": claim(table="main")}
    with pytest.raises(UserError, match="found 'none'; allowed: headline"):
        configuration.plan()


TEN_THOUSAND = {"table4", "table5", "interpretations", "methods"}


def test_where_the_paper_has_ten_thousand_samples_so_have_we():
    """Tables 4 and 5, Figs. 4 and 8 and their claims: FID-10K; the others without guidance: FID-50K."""
    project = load_project(CONFIG)
    for name, table in project.tables.items():
        if table.preset in ("headline", "ablation"):
            assert (table.preset == "ablation") == (name in TEN_THOUSAND), name
            assert table.paper_samples == ("10K" if name in TEN_THOUSAND else "50K"), name
    figures = figures_of(Plan(project))
    assert figures["fig4"].settings.preset == figures["fig8"].settings.preset == "ablation"
    for name, claim in project.claims.items():
        of_ten = claim.table in TEN_THOUSAND or claim.source.startswith("Fig. 8")
        assert (claim.preset == "ablation") == of_ten, name


# ----------------------------------------------------------------------------- what there is of the paper at a size


def test_rows_that_a_scale_has_not_are_in_no_table_claim_or_figure(configuration):
    configuration.scale["rows"] = ["plain", "al*"]
    configuration.tables["main"]["compare_with"] = "plain@8"
    configuration.tables["guided"] = {**configuration.tables["main"], "rows": configuration.tables["main"]["rows"][2:]}
    configuration.tables["guided"].pop("paper")
    configuration.claims = {"helps": claim(table="main"), "guided": claim(better="guided@8")}
    folder = configuration.write()
    (folder / "figures.yaml").write_text(yaml.safe_dump(FIGURES))
    (folder / "paper" / "curves.csv").write_text("run,10K\nplain,3.0\n")
    plan = configuration.plan()
    assert list(plan.project.rows) == ["plain", "aligned"]
    assert [row.run for row in plan.project.tables["main"].rows] == ["plain@8", "aligned@8"]
    assert list(plan.project.tables) == ["main"]
    assert list(plan.project.claims) == ["helps"]
    assert list(figures_of(plan)) == ["curve"]


FIGURES = {
    "curve": {"title": "t", "caption": "c", "kind": "curves", "runs": ["plain"], "until": 8, "paper": "curves.csv"},
    "both": {"title": "t", "caption": "c", "kind": "training", "runs": ["plain@8", "guided@8"]},
}


def test_a_scale_names_the_tables_and_figures_that_it_has(configuration):
    configuration.tables["other"] = {**configuration.tables["main"], "paper": None}
    configuration.scale |= {"tables": ["oth*"], "figures": ["curve"]}
    configuration.claims = {"helps": claim(table="main"), "other": claim()}
    folder = configuration.write()
    (folder / "figures.yaml").write_text(yaml.safe_dump(FIGURES))
    plan = configuration.plan()
    assert list(plan.project.tables) == ["other"]
    assert list(plan.project.claims) == ["other"]  # the other is about a table that is not shown
    assert list(figures_of(plan)) == ["curve"]
    configuration.scale["figures"] = []
    assert figures_of(configuration.plan()) == {}


@pytest.mark.parametrize(("key", "pattern"), [("rows", "sit-*"), ("tables", "table9"), ("figures", "fig9")])
def test_a_pattern_that_nothing_fits_is_a_slip(configuration, key, pattern):
    configuration.scale[key] = [pattern]
    with pytest.raises(UserError, match=rf"tiny.yaml: {key}.1: found .*; allowed: a pattern that matches some of"):
        figures_of(configuration.plan())


def test_a_row_that_a_scale_has_not_is_checked_all_the_same(configuration):
    configuration.scale["rows"] = ["plain"]
    configuration.tables["main"]["compare_with"] = None
    configuration.rows["aligned"]["weight"] = -1.0
    with pytest.raises(UserError, match=r"aligned\.weight: found -1\.0"):
        configuration.plan()


def test_a_teacher_must_be_among_the_rows(configuration):
    configuration.scale["rows"] = ["plain", "guided"]
    with pytest.raises(UserError, match=r"guided\.teacher: found 'aligned@4'"):
        configuration.plan()


# -------------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize(
    ("asked", "stated", "of_scale", "seeds"),
    [
        ({}, {}, {}, (1, 4)),
        ({}, {}, {"seeds": 2, "claim_seeds": 3}, (2, 3)),
        ({}, {"claim_seeds": 5}, {"claim_seeds": 3}, (1, 5)),
        ({"claim_seeds": 6, "seeds": 2}, {"claim_seeds": 5}, {"claim_seeds": 3}, (2, 6)),
    ],
)
def test_seeds_are_what_is_asked_for_then_stated_then_of_the_scale(configuration, asked, stated, of_scale, seeds):
    configuration.settings = {"scale": "tiny", "seeds": None, "claim_seeds": None} | stated
    configuration.scale |= of_scale
    project = configuration.project(**asked)
    assert (project.seeds, project.claim_seeds) == seeds


# ------------------------------------------------------------------------------------------------------- images


def of_files(configuration, path, **fields):
    configuration.family["data"] = {"source": "images", "name": "mine", "path": str(path), "size": 16, **fields}
    return configuration.project().scale.families["small"].data


def test_classes_are_counted_where_they_are_not_said(configuration, tmp_path):
    for name in ("cat", "dog", "fish", ".thumbnails"):
        (tmp_path / "folder" / name).mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").touch()
    assert of_files(configuration, tmp_path / "folder").classes == 3
    assert of_files(configuration, tmp_path / "flat").classes == 1
    assert of_files(configuration, tmp_path / "folder", only=["cat", "dog"]).classes == 2
    assert of_files(configuration, tmp_path / "nowhere", classes=7).classes == 7


def test_a_missing_folder_and_an_archive_are_said(configuration, tmp_path):
    with pytest.raises(UserError, match=r"small.data.path: \S+/nowhere is not there; put the images there, or name"):
        of_files(configuration, tmp_path / "nowhere")
    (tmp_path / "images.zip").touch()
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "n01440764.tar").touch()
    (tmp_path / "empty").mkdir()
    for path in ("images.zip", "archives", "empty"):
        with pytest.raises(UserError, match=rf"data.classes: missing; say how many \S+/{path} has: only folders"):
            of_files(configuration, tmp_path / path)


def test_features_are_of_training_images_where_there_are_no_others(configuration, tmp_path):
    probe = Probe(0.5, 60)
    assert ".test-60." in configuration.plan().features("plain@8", 0, probe).name
    of_files(configuration, tmp_path, classes=2)
    assert ".train-60." in configuration.plan().features("plain@8", 0, probe).name
    of_files(configuration, tmp_path, classes=2, held_out=0.1)
    assert ".test-60." in configuration.plan().features("plain@8", 0, probe).name


# ------------------------------------------------------------------------------------------------ shipped scales


@pytest.fixture(scope="module")
def imagenet():
    return Plan(load_project(CONFIG, scale="imagenet"))


# METHODS: parameters of the backbones with 4 (SiT) and 32 (LightningDiT) channels, and the tokens of an image.
PARAMETERS = {
    ("sit256", "sit-s2"): (32_957_200, 256),
    ("sit256", "sit-b2"): (130_500_112, 256),
    ("sit256", "sit-l2"): (458_086_416, 256),
    ("sit256", "sit-xl2"): (675_111_184, 256),
    ("sit256", "sit-xl2-qknorm"): (675_111_184 + 28 * 2 * 2 * 72, 256),  # weight and bias for queries and keys
    ("ldit256", "ldit-b1"): (130_556_192, 256),
    ("ldit256", "ldit-xl1"): (675_256_736, 256),
}


def test_models_of_imagenet_are_the_published_ones(imagenet):
    shapes = {"sit256": (4, 32, 32), "ldit256": (32, 16, 16), "sit512": (4, 64, 64)}
    built = {}
    for run in imagenet.runs.values():
        key = (run.row.family, run.row.model)
        if key in built:
            continue
        with torch.device("meta"):
            backbone = build_backbone(**run.backbone).to("meta")
            predicted = backbone(torch.zeros(2, *shapes[key[0]]), torch.zeros(2), torch.zeros(2, dtype=torch.long))
        assert predicted.velocity.shape == (2, *shapes[key[0]])
        built[key] = (sum(parameter.numel() for parameter in backbone.parameters()), run.tokens)
    more_positions = (1024 - 256) * 1152
    assert built == PARAMETERS | {("sit512", "sit-xl2"): (675_111_184 + more_positions, 1024)}


def test_heads_of_imagenet_have_the_published_size(imagenet):
    """REPA's projector to the 768 channels of DINOv2-B."""
    for name, parameters in {"sit-b2-repa": 7_344_896, "sit-l2-repa": 7_869_184, "sit-xl2-repa": 8_131_328}.items():
        run = imagenet.run(name, 0)
        with torch.device("meta"):
            head = projector(run.model.width, run.model.projector_width, 768)
        assert sum(parameter.numel() for parameter in head.parameters()) == parameters


def test_imagenets_schedules_are_the_papers(imagenet):
    """Steps of the milestones that tables, teachers and stops ask for."""
    assert imagenet.milestone("sit-b2@80", 0)[1] == 400_000
    assert imagenet.milestone("sit-xl2@1400", 0)[1] == 7_000_000
    assert imagenet.milestone("ldit-xl1@64", 0)[1] == 80_000
    assert imagenet.milestone("ldit-xl1@800", 0)[1] == 1_000_000
    assert imagenet.run("sit-b2-st", 0).teacher.step == 200_000
    assert imagenet.run("sit-b2-st", 0).recipe["stop"] == 100_000
    assert imagenet.run("sit-xl2-st", 0).recipe["stop"] == 50_000
    xl = imagenet.run("sit-xl2-st", 0)
    assert (xl.row.method["guided_layer"], xl.teacher.layer) == (14, 19)
    steps = {imagenet.run(f"sit-b2-st-t{age}k", 0).teacher.step for age in (50, 100, 300)}
    assert steps == {50_000, 100_000, 300_000}
    stage1 = {name: imagenet.run(f"sit-{name}-vae", 0).row.method["layer"] for name in ("b2", "l2", "xl2")}
    assert stage1 == {"b2": 2, "l2": 4, "xl2": 5}
    points = [path.name for path in inputs_of(imagenet, "fig4") if path.suffix == ".json"]
    assert {int(re.search(r"step-(\d+)", name)[1]) for name in points} >= {50_000, 100_000, 200_000, 300_000, 400_000}


def test_imagenets_samples_are_as_many_as_the_papers(imagenet):
    for name, table in imagenet.project.tables.items():
        papers = {"10K": 10_000, "50K": 50_000}[table.paper_samples]
        for row in table.trained:
            run, _ = imagenet.milestone(row.run, 0)
            preset = run.family.presets[row.preset or table.preset]
            assert preset.samples == papers, (name, row.label)
            assert preset.labels == "uniform"
            if name == "published":  # one file through samplers of several publishers
                continue
            assert preset.to_uint8 == "dit"
            if run.row.family != "ldit256":
                assert (preset.sampler, preset.steps) == ("euler_maruyama_sde", 250)
    guidance = {
        row.label: (preset.cfg_scale, preset.cfg_interval, preset.cfg_channels)
        for row in imagenet.project.tables["table2"].trained
        for preset in [imagenet.milestone(row.run, 0)[0].family.presets[row.preset or "cfg"]]
    }
    assert guidance["SiT-XL/2"] == (1.5, (0, 1), 3)
    assert guidance["SiT-XL/2 + REPA"] == guidance["SiT-XL/2 + SRA"] == (1.8, (0, 0.7), None)
    assert guidance["SiT-XL/2 + Self-Transcendence"] == (1.9, (0, 0.65), None)
    assert guidance["LightningDiT-XL/1"] == (6.7, (0, 0.875), 3)


def test_imagenet100_is_a_hundred_classes_and_tables_4_and_5(imagenet):
    plan = Plan(load_project(CONFIG, scale="imagenet100"))
    data = plan.scale.families["sit256"].data
    assert len(set(data.only)) == data.classes == 100
    assert list(data.only) == sorted(data.only)
    for name in ("table4", "table5"):
        rows = imagenet.project.tables[name].rows
        assert plan.project.tables[name].rows == rows
    assert {run.row.model for run in plan.runs.values()} == {"sit-s2", "sit-b2"}
    assert list(figures_of(plan)) == ["fig4", "table5", "omega"]
    cost = Remaining(
        plan, [path for name in ("table4", "table5") for path in plan.metrics_of(plan.project.tables[name])]
    )
    assert (cost.steps, cost.images) == (205_000, 200_000)  # as its file says


def test_own_images_are_three_lines(tmp_path, monkeypatch):
    (tmp_path / "mushrooms" / "fly_agaric").mkdir(parents=True)
    (tmp_path / "mushrooms" / "penny_bun").mkdir()
    monkeypatch.chdir(tmp_path)
    text = (CONFIG / "scales" / "own_images.yaml").read_text()
    for line, edited in {
        "path: images ": "path: mushrooms ",
        "size: 256 ": "size: 64 ",
        "name: own ": "name: fungi ",
    }.items():
        assert text.count(line) == 1
        text = text.replace(line, edited)
    (tmp_path / "mine.yaml").write_text(text)
    plan = Plan(load_project(CONFIG, scale="mine.yaml"))
    assert list(plan.runs) == [plan.run(name, 0).id for name in ("sit-b2", "sit-b2-vae", "sit-b2-st")]
    assert plan.run("sit-b2", 0).backbone | {"input_size": 8, "num_classes": 2} == plan.run("sit-b2", 0).backbone
    assert [row.run for row in plan.project.tables["methods"].rows] == ["sit-b2@80", "sit-b2-vae@80", "sit-b2-st@80"]
    assert {found.name for found in outside(plan)} == {"fungi", "sd-vae-ft-mse", "inception"}
    assert plan.project.claims == figures_of(plan) == {}


def test_own_images_without_a_network_are_what_the_docs_say(tmp_path, monkeypatch):
    """The keys of docs/own_images.md in the place of the scale's own."""
    (tmp_path / "images" / "cat").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```yaml\n(data:.*?)```", (CONFIG.parent / "docs" / "own_images.md").read_text(), re.DOTALL)
    scale = yaml.safe_load((CONFIG / "scales" / "own_images.yaml").read_text())
    trained = yaml.safe_load(block)
    trained["tokenizer"]["kl_weight"] = float(trained["tokenizer"]["kl_weight"])  # PyYAML's own rules take it for text
    scale["families"]["sit256"] |= trained
    Path("mine.yaml").write_text(yaml.safe_dump(scale, sort_keys=False))
    assert {found.name for found in outside(Plan(load_project(CONFIG, scale="mine.yaml")))} == {"own"}


def test_what_is_asked_for_is_what_the_files_are_made_of(imagenet):
    keys = imagenet.keys["sit512"]
    latents, reference = f"latents/{keys.latents}", f"references/{keys.extractor}.npz"
    made = {
        f"{latents}/stats.json": {"data.path"},
        f"{latents}.parts/1-of-8.json": {"data.path"},
        f"data/{keys.data}/train/manifest.json": {"data.path"},
        f"tokenizers/{keys.tokenizer}.safetensors": {"tokenizer.weights", "tokenizer.decoder_weights"},
        f"extractors/{keys.extractor}.safetensors": {"extractor.weights"},
        f"extractors/{keys.second_extractor}.json": set(),
        reference: {"reference.file"},
        f"references/{keys.second_extractor}.npz": {"data.path"},
        f"encoders/{keys.encoder}.safetensors": {"encoder.weights"},
        "runs/some.step-10.ema.safetensors": set(),
    }
    for path, needed in made.items():
        if not needed:
            require_outside(imagenet, [imagenet.root / path])
            continue
        with pytest.raises(UserError) as caught:
            require_outside(imagenet, [imagenet.root / path])
        assert set(re.findall(r"families\.\w+\.([\w.]+):", str(caught.value))) == needed, path


@pytest.mark.parametrize("scale", ["imagenet", "imagenet100"])
def test_all_that_a_scale_needs_is_published_somewhere(scale):
    publications = load_publications(CONFIG)
    for found in outside(Plan(load_project(CONFIG, scale=scale))):
        publication = publications[found.name]
        if publication.files and not publication.folder:
            assert found.path.name == publication.files[0].name
        assert str(found.path).startswith("external/")


def test_the_extractor_of_fid_is_the_one_that_is_checked():
    (file,) = load_publications(CONFIG)["inception"].files
    assert file.sha256 == PUBLISHED_SHA256


# ------------------------------------------------------------------------------------------- the whole, planned


TABLES = [f"results/{name}.csv" for name in yaml.safe_load((CONFIG / "tables.yaml").read_text())]
PICTURES = [f"results/figures/{name}.pdf" for name in yaml.safe_load((CONFIG / "figures.yaml").read_text())]


@pytest.mark.workflow
def test_every_table_figure_and_claim_is_planned_at_imagenet_without_its_files(tmp_path):
    planned = snakemake("-n", "--", *TABLES, *PICTURES, "results/claims.csv", **at_imagenet(tmp_path))
    assert planned.returncode == 0, planned.stderr
    assert "sample" in planned.stdout + planned.stderr


@pytest.mark.workflow
@pytest.mark.parametrize(("table", "packs"), [("table4", False), ("published", False), ("methods", True)])
def test_images_are_packed_at_imagenet_only_for_rows_that_look_at_them(tmp_path, table, packs):
    planned = snakemake("-n", "--quiet", "rules", "--", f"results/{table}.csv", **at_imagenet(tmp_path))
    assert planned.returncode == 0, planned.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout + planned.stderr, re.MULTILINE))
    assert jobs["make_reference"] == "1"
    assert ("pack_images" in jobs) is packs


@pytest.mark.workflow
def test_what_is_missing_is_said_before_any_job(tmp_path):
    asked = snakemake("--", "results/table4.csv", **at_imagenet(tmp_path))
    assert asked.returncode != 0
    assert "imagenet.yaml: families.sit256.data.path: external/imagenet/train (imagenet) is not there" in asked.stderr
    assert "imagenet.yaml` brings what can be had, and says where the rest is" in asked.stderr
    assert "imagenet512" not in asked.stderr  # which Table 4 does not need
    assert "dinov2-b" not in asked.stderr
    assert not list((tmp_path / "results" / "imagenet").glob("[!m]*"))


def at_imagenet(folder: Path) -> dict[str, Path]:
    """Snakemake's options: the shipped configuration with another scale."""
    config = folder / "config"
    shutil.copytree(CONFIG, config)
    settings = config / "config.yaml"
    settings.write_text(settings.read_text().replace("scale: demo", "scale: imagenet"))
    return {"folder": folder, "config": config}
