"""Multiplications, beside those that torch counts while the real thing runs."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy import random_backbone, smoke_run, toy_dataset

from selftrans.config.families import PublishedEncoder
from selftrans.config.reading.project import load_project
from selftrans.config.signatures import method_names
from selftrans.data.latent_stats import LatentStats
from selftrans.data.latents import LatentDataset
from selftrans.data.packed import Packed, write_packed
from selftrans.errors import UserError
from selftrans.models.encoders import PUBLISHED, Encoder, build_published, build_vit
from selftrans.models.teacher import FrozenTeacher
from selftrans.plan.flops import FLOP, METHODS, Cost, encoder_of, petaflop, spent, step_cost
from selftrans.plan.plan import Plan
from selftrans.training.distributed import Ranks
from selftrans.training.trainer import Trainer
from workflow import REPOSITORY

ROWS = {  # a row of the smoke scale for each method
    "vae_align": "aligned",
    "repa": "external",
    "self_transcendence": "guided",
    "dispersive": "disperse",
    **{name: name for name in ("layersync", "sra", "irepa", "haste")},
    "vae_repa": "vae-repa",
}


@pytest.fixture(scope="module")
def imagenet():
    return Plan(load_project(REPOSITORY / "config", scale="imagenet"))


def dataset_of(folder, run):
    """Packed random latents, with images if the run looks at them."""
    if not run.needs_images:
        return toy_dataset(folder / "latents")
    draws, labels = torch.Generator().manual_seed(3), torch.arange(20) % 10
    pixels = torch.randint(256, (20, 3, 32, 32), generator=draws).to(torch.uint8)
    write_packed(folder / "images", "images", [(pixels, labels)], count=20, source={}, about={})
    images = Packed(folder / "images", "images")
    moments, source = torch.rand(20, 8, 8, 8, generator=draws), {"images": images.sha256}
    write_packed(folder / "latents", "moments", [(moments, labels)], count=20, source=source, about={})
    return LatentDataset(Packed(folder / "latents", "moments"), images, LatentStats((0.0,) * 4, (1.0,) * 4))


def trainer_of(folder, run):
    """A real trainer, whose teacher or encoder has random weights."""
    context = {}
    if run.teacher is not None:
        sizes = {key: value for key, value in run.backbone.items() if key != "backbone"}
        layer = run.teacher.layer
        context["teacher"] = FrozenTeacher(random_backbone(**(sizes | {"blocks": layer})), layer, {"sha256": "0"})
    if run.needs_images:
        context["encoder"] = Encoder(build_vit(classes=10, size=32), {"classes": 10, "size": 32}, {"sha256": "0"})
    return Trainer(run, dataset_of(folder, run), context, Ranks(torch.device("cpu")))


def counted(work):
    """Multiplications of what ``work`` does; attention as two plain products, of which none is computed again."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops() / FLOP


@pytest.mark.parametrize("name", ["vanilla", "lightning", *ROWS.values()])
def test_a_step_costs_what_torch_counts(name, tmp_path):
    run = smoke_run(name)
    trainer = trainer_of(tmp_path, run)
    assert counted(trainer.train_step) == step_cost(run, 0).total


def test_every_method_has_its_cost():
    assert sorted(METHODS) == sorted(ROWS) == method_names()


@pytest.mark.parametrize(
    "settings",
    [{"head": "normed"}, {"head": "mlp", "target": "v"}],
    ids=["normed head", "velocity"],
)
def test_what_a_setting_changes_is_counted(settings, tmp_path):
    run = smoke_run("aligned")
    run = replace(run, row=run.row.model_copy(update={"method": run.row.method | settings}))
    assert counted(trainer_of(tmp_path, run).train_step) == step_cost(run, 0).total


def test_parts_of_a_batch_add_up_to_it(tmp_path):
    run = smoke_run("guided")
    run = replace(run, family=run.family.model_copy(update={"micro_batch": 2}))
    assert counted(trainer_of(tmp_path, run).train_step) == step_cost(run, 0).total


def test_what_is_computed_again_to_save_memory_costs_nothing(tmp_path):
    run = smoke_run("aligned")
    saving = replace(run, model=run.model.model_copy(update={"checkpoint_activations": True}))
    assert step_cost(saving, 0) == step_cost(run, 0)
    assert counted(trainer_of(tmp_path, saving).train_step) > step_cost(saving, 0).total


@pytest.mark.parametrize("published", PUBLISHED)
def test_published_encoders_cost_what_torch_counts(published, imagenet):
    run = imagenet.run("sit-b2-repa", 0)
    recipe = PublishedEncoder(published=published, weights="none")
    found = encoder_of(replace(run, family=run.family.model_copy(update={"encoder": recipe})))
    vit = build_published(published=published, image_size=256)
    size = vit.patch_embed.img_size
    pixels = torch.zeros(1, 3, *size, device="meta")
    assert counted(lambda: vit.forward_features(pixels)) == found.forward
    assert (found.depth, found.width, found.patch) == (len(vit.blocks), vit.embed_dim, vit.patch_embed.patch_size[0])


# ---------------------------------------------------------------------------------------- what a run has paid


def test_after_the_stop_a_step_costs_what_a_vanilla_one_does():
    guided, vanilla = smoke_run("guided"), smoke_run("vanilla")
    stop = guided.recipe["stop"]
    before, after = step_cost(guided, stop - 1), step_cost(guided, stop)
    assert after == step_cost(vanilla, 0) == Cost(student=before.student)
    assert min(before.projector, before.target) > 0


def test_a_run_has_paid_its_steps_and_its_guiding_model():
    """Guided for 10 steps by what another run is after 10."""
    guided, aligned, vanilla = (step_cost(smoke_run(name), 0) for name in ("guided", "aligned", "vanilla"))
    found = spent(smoke_run("guided"), 40)
    assert found.stage1 == 10 * aligned.total == spent(smoke_run("aligned"), 10).total
    assert found.student == 40 * vanilla.total
    assert (found.projector, found.target) == (10 * guided.projector, 10 * guided.target)
    assert found.total == found.stage1 + found.student + found.projector + found.target
    assert spent(smoke_run("guided"), 4).target == 4 * guided.target
    assert spent(smoke_run("vanilla"), 40) == Cost(student=40 * vanilla.total)


def test_at_the_papers_size_a_step_is_what_is_known_of_it(imagenet):
    """SiT-XL/2 at 256 px takes 118.6 GFLOP (multiplications, as DiT's paper has them) for an image forward."""
    run = imagenet.run("sit-xl2", 0)
    assert step_cost(run, 0).total / 3 / 256 == pytest.approx(118.6e9, rel=0.005)
    assert petaflop(step_cost(run, 0).total) == pytest.approx(256 * 0.71e-3, rel=0.01)  # 0.71 TFLOP an image


def test_the_guiding_model_costs_what_its_share_of_the_blocks_does(imagenet):
    """Two passes through 8 of 12 blocks beside three through 12; the paper's size, where projectors are small."""
    cost = step_cost(imagenet.run("sit-b2-st", 0), 0)
    assert cost.target / cost.student == pytest.approx(2 * 8 / (3 * 12), rel=0.01)
    assert 0 < cost.projector < 0.1 * cost.student


def test_a_method_that_nobody_has_counted_is_refused(monkeypatch):
    monkeypatch.delitem(METHODS, "vae_align")
    with pytest.raises(UserError, match=r"^selftrans\.plan\.flops: METHODS: nobody says what a step of .*'vae_align'"):
        step_cost(smoke_run("aligned"), 0)
