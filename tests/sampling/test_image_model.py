"""Image i belongs to (seed, i): the same alone, in any batch, in any shard; and guidance is what it says."""

from contextlib import contextmanager
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import random_backbone

from selftrans.config.presets import Preset
from selftrans.data.latent_stats import LatentStats
from selftrans.diffusion.guidance import guide, guided_velocity
from selftrans.errors import UserError
from selftrans.models.tokenizer import Tokenizer, build_vae
from selftrans.sampling.drawing import Sampling, draw_latents, image_noise
from selftrans.sampling.image_model import (
    ImageModel,
    batch_indices,
    batches_of,
    sample_batches,
    sample_images,
    sample_labels,
    sample_latents,
)
from selftrans.sampling.samples import BatchFolder

STEPS = {"euler_ode": 4, "heun_ode": 4, "euler_maruyama_sde": 4, "dopri5_ode": None}
PRESETS = {sampler: Preset(sampler=sampler, steps=steps, samples=24) for sampler, steps in STEPS.items()}
PRESETS["guided"] = Preset(sampler="euler_ode", steps=4, samples=24, cfg_scale=3.0, cfg_interval=(0.2, 0.8))
BATCH_FREE = {name: preset for name, preset in PRESETS.items() if name != "dopri5_ode"}


def gentle_backbone(**sizes):
    """A random one whose velocity is small enough for a trajectory to stay of the size of its noise."""
    backbone = random_backbone(**sizes).eval()
    with torch.no_grad():
        backbone.final_layer.linear.weight *= 0.02
        backbone.final_layer.linear.bias *= 0.02
    return backbone


def latents_of(preset: Preset, indices: list[int], backbone=None) -> torch.Tensor:
    chosen = torch.tensor(indices)
    labels = sample_labels(preset, 10, seed=3)[chosen]
    return sample_latents(backbone or gentle_backbone(), labels, chosen, preset, 3)


# ------------------------------------------------------------------------------------------- image and seed


@pytest.mark.parametrize("preset", BATCH_FREE.values(), ids=BATCH_FREE)
def test_image_17_is_image_17_in_any_batch(preset: Preset) -> None:
    alone = latents_of(preset, [17])[0]
    torch.testing.assert_close(latents_of(preset, [3, 17, 5])[1], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(latents_of(preset, list(range(24)))[17], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(latents_of(preset, [18])[0], alone)


def test_with_dopri5_an_image_depends_on_its_batch_within_the_tolerance() -> None:
    alone = latents_of(PRESETS["dopri5_ode"], [17])[0]
    torch.testing.assert_close(latents_of(PRESETS["dopri5_ode"], [3, 17, 5])[1], alone, rtol=1e-2, atol=1e-2)


def test_noise_is_bit_identical_and_differs_by_image_seed_and_step() -> None:
    whole = image_noise(0, "sample", torch.arange(5), (4, 8, 8))
    assert torch.equal(whole[3:4], image_noise(0, "sample", torch.tensor([3]), (4, 8, 8)))
    others = [image_noise(1, "sample", torch.tensor([3]), (4, 8, 8))]
    others += [image_noise(0, "sampler", torch.tensor([3]), (4, 8, 8), step) for step in (0, 1)]
    assert len({noise.sum().item() for noise in [*others, *whole.split(1)]}) == 8
    assert abs(image_noise(0, "sample", torch.arange(200), (4, 8, 8)).std() - 1) < 0.01


def test_labels_balanced_and_never_sorted_or_uniform() -> None:
    balanced = sample_labels(PRESETS["euler_ode"], 10, seed=0)
    assert balanced.tolist() == [i % 10 for i in range(24)]
    uniform = Preset(sampler="euler_ode", steps=2, samples=2000, labels="uniform")
    labels = sample_labels(uniform, 10, seed=0)
    assert torch.equal(labels[:50], sample_labels(uniform.model_copy(update={"samples": 50}), 10, seed=0))
    assert not torch.equal(labels, sample_labels(uniform, 10, seed=1))
    counts = labels.bincount(minlength=10)
    assert counts.sum() == 2000
    assert counts.min() > 140


def test_the_samplers_agree_where_steps_are_many() -> None:
    """One flow, four ways through it; the SDE shares only its distribution."""
    fine = dict.fromkeys(("euler_ode", "heun_ode"), 200)
    found = [
        latents_of(Preset(sampler=sampler, steps=fine.get(sampler), samples=24), [0, 1, 2])
        for sampler in ("euler_ode", "heun_ode", "dopri5_ode")
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0.02)
    torch.testing.assert_close(found[1], found[2], rtol=0, atol=0.005)


# ------------------------------------------------------------------------------------------------ guidance


@contextmanager
def calls_of(backbone):
    """The (x, t, labels) of each forward pass of a backbone."""
    calls = []
    hook = backbone.register_forward_hook(lambda module, inputs, output: calls.append(inputs))
    yield calls
    hook.remove()


def guided(backbone, scale, interval=(0.0, 1.0), channels=None):
    labels = torch.tensor([3, 7])

    def predict(x, t, labels):
        return backbone(x, t, labels).velocity

    return guided_velocity(predict, labels, backbone.null_label, scale=scale, interval=interval, channels=channels)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_inside_the_interval_one_pass_of_the_doubled_batch(x) -> None:
    backbone = gentle_backbone()
    t = torch.full((2,), 0.5)
    conditional = backbone(x, t, torch.tensor([3, 7])).velocity
    unconditional = backbone(x, t, torch.tensor([10, 10])).velocity
    with calls_of(backbone) as calls:
        found = guided(backbone, 4.0, (0.2, 0.7))(x, 0.5)
    ((shown, times, labels),) = calls
    assert torch.equal(shown, torch.cat([x, x]))
    assert times.tolist() == [0.5] * 4
    assert labels.tolist() == [3, 7, 10, 10]
    torch.testing.assert_close(found, guide(conditional, unconditional, 4.0), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, conditional, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("scale", "t"), [(4.0, 0.71), (4.0, 0.19), (4.0, 1.0), (1.0, 0.5)], ids=["above", "below", "noise", "scale 1"]
)
def test_elsewhere_one_pass_of_the_batch_as_it_is(x, scale, t) -> None:
    backbone = gentle_backbone()
    with calls_of(backbone) as calls:
        found = guided(backbone, scale, (0.2, 0.7))(x, t)
    ((shown, _, labels),) = calls
    assert torch.equal(shown, x)
    assert labels.tolist() == [3, 7]
    assert torch.equal(found, backbone(x, torch.full((2,), t), torch.tensor([3, 7])).velocity)


@torch.no_grad()
def test_the_ends_of_the_interval_belong_to_it(x) -> None:
    backbone = gentle_backbone()
    for t in (0.2, 0.7):
        with calls_of(backbone) as calls:
            guided(backbone, 4.0, (0.2, 0.7))(x, t)
        assert [len(shown) for shown, *_ in calls] == [4]


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_only_the_first_channels_are_guided(x, channels) -> None:
    backbone = gentle_backbone()
    whole, plain = guided(backbone, 4.0)(x, 0.5), guided(backbone, 1.0)(x, 0.5)
    some = guided(backbone, 4.0, channels=channels)(x, 0.5)
    assert torch.equal(some[:, :channels], whole[:, :channels])
    torch.testing.assert_close(some[:, channels:], plain[:, channels:], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_guiding_the_drift_of_the_sde_is_guiding_the_velocity(x) -> None:
    """As REPA does it: v - t * score of both branches, combined; equal in float64 to rounding."""
    from selftrans.diffusion.interpolant import score_from_velocity

    backbone, t = gentle_backbone(), torch.tensor([0.3], dtype=torch.float64)
    both = backbone(torch.cat([x, x]), torch.full((4,), 0.3), torch.tensor([3, 7, 10, 10])).velocity.double()
    drifts = [v - t * score_from_velocity(v, x.double(), t) for v in both.chunk(2)]
    v = guide(*both.chunk(2), 1.8)
    torch.testing.assert_close(guide(*drifts, 1.8), v - t * score_from_velocity(v, x.double(), t))


def test_a_sampler_doubles_its_batch_in_the_interval_only() -> None:
    backbone = gentle_backbone()
    preset = Preset(sampler="euler_ode", steps=10, samples=24, cfg_scale=3.0, cfg_interval=(0.0, 0.65))
    with calls_of(backbone) as calls:
        latents_of(preset, [0, 1, 2], backbone)
    assert [len(shown) for shown, *_ in calls] == [3] * 4 + [6] * 6  # at t = 1.0 ... 0.7, and 0.6 ... 0.1


def test_scale_1_is_no_guidance_bit_for_bit() -> None:
    backbone = gentle_backbone()
    plain = latents_of(PRESETS["euler_ode"], [0, 1], backbone)
    preset = PRESETS["euler_ode"].model_copy(update={"cfg_scale": 1.0, "cfg_interval": (0.1, 0.9)})
    assert torch.equal(latents_of(preset, [0, 1], backbone), plain)
    preset = PRESETS["euler_ode"].model_copy(update={"cfg_scale": 2.0, "cfg_interval": (0.3, 0.4)})
    assert torch.equal(latents_of(preset, [0, 1], backbone), plain)  # no step is in it


def test_a_compiled_backbone_draws_the_same() -> None:
    """As --compile does it, but for the generated code: batches of both sizes go through one traced graph each."""
    backbone, preset = gentle_backbone(), PRESETS["guided"]
    exact = latents_of(preset, [0, 1], backbone)
    backbone.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(latents_of(preset, [0, 1], backbone), exact, rtol=1e-5, atol=1e-5)


# ----------------------------------------------------------------------------------------------- precision


def test_bfloat16_is_of_the_backbone_alone() -> None:
    """Linear layers answer in bfloat16; states and latents do not; the outcome is near that of float32."""
    backbone, seen = gentle_backbone(), set()
    backbone.blocks[0].mlp.fc1.register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    fast = PRESETS["guided"].model_copy(update={"precision": "bfloat16"})
    with calls_of(backbone) as calls:
        latents = latents_of(fast, [0, 1], backbone)
    assert seen == {torch.bfloat16}
    assert {shown.dtype for shown, *_ in calls} == {torch.float32}
    assert latents.dtype == torch.float32
    exact = latents_of(PRESETS["guided"], [0, 1], backbone)
    assert not torch.equal(latents, exact)
    torch.testing.assert_close(latents, exact, rtol=0, atol=0.1)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_precision_does_not_outlive_its_sampling(precision) -> None:
    before = torch.get_float32_matmul_precision()
    latents_of(PRESETS["euler_ode"].model_copy(update={"precision": precision}), [0])
    assert torch.get_float32_matmul_precision() == before
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("sampler", ["euler_ode", "heun_ode", "euler_maruyama_sde"])
def test_a_gpu_is_not_waited_for(sampler) -> None:
    """torch raises at whatever would make the host wait between steps."""
    backbone = gentle_backbone().cuda()
    sampling = Sampling(sampler, steps=4, cfg_scale=2.0, cfg_interval=(0.0, 0.6), precision="bfloat16")
    labels = torch.arange(2).cuda()

    def draw() -> torch.Tensor:
        return draw_latents(
            lambda *asked: backbone(*asked).velocity, labels, 10, torch.arange(2), (4, 8, 8), sampling, seed=0
        )

    draw()  # caches of what kernel is fastest
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        draw()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ------------------------------------------------------------------------------------------ sharing the work


@given(samples=st.integers(1, 60), batch_size=st.integers(1, 60), shards=st.integers(1, 9))
def test_shards_share_the_batches_without_gap_or_overlap(samples, batch_size, shards) -> None:
    preset = Preset(sampler="euler_ode", steps=2, samples=samples, batch_size=batch_size)
    whole = list(batches_of(preset))
    assert list(chain.from_iterable(batch_indices(preset, batch).tolist() for batch in whole)) == list(range(samples))
    parts = [batches_of(preset, shard, shards) for shard in range(1, shards + 1)]
    assert list(chain.from_iterable(parts)) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.fixture(scope="module")
def model() -> ImageModel:
    """A toy backbone and VAE: latents of 8 x 8, images of 16 x 16."""
    architecture = {"block_channels": (8, 8), "latent_channels": 4, "layers_per_block": 1, "norm_groups": 2}
    torch.manual_seed(0)
    tokenizer = Tokenizer(build_vae(**architecture), architecture)
    return ImageModel(gentle_backbone(), tokenizer, LatentStats((0.0,) * 4, (1.0,) * 4), {})


MADE_OF = {"run": "toy-s1-01234567", "step": 10, "seed": 1}
SHARED = Preset(sampler="euler_maruyama_sde", steps=3, samples=22, batch_size=4, cfg_scale=2.0)


def drawn(model, folder, *shards, replicas=()) -> torch.Tensor:
    labels = sample_labels(SHARED, 10, seed=1)
    for shard in shards:
        sample_batches(model, labels, SHARED, 1, batches_of(SHARED, *shard), folder, "toy samples", replicas)
    return torch.cat([folder.load(batch) for batch in batches_of(SHARED)])


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> torch.Tensor:
    return drawn(model, BatchFolder(tmp_path_factory.mktemp("whole"), MADE_OF), (1, 1))


def test_an_image_is_the_same_in_any_shard(model, whole, tmp_path) -> None:
    assert whole.shape == (22, 3, 16, 16)
    assert whole.float().std() > 1
    assert torch.equal(drawn(model, BatchFolder(tmp_path, MADE_OF), (3, 3), (1, 3), (2, 3)), whole)


def test_an_image_is_the_same_alone(model, whole) -> None:
    labels = sample_labels(SHARED, 10, seed=1)
    alone = sample_images(model, labels[17:18], torch.tensor([17]), SHARED, 1)
    assert (alone[0].int() - whole[17].int()).abs().max() <= 1  # a batch of another size sums in another order


def test_an_image_is_the_same_from_any_of_several_devices(model, whole, tmp_path) -> None:
    replicas = model.replicas(["cpu", "cpu"])
    with calls_of(model.backbone) as own, calls_of(replicas[1].backbone) as other:
        assert torch.equal(drawn(model, BatchFolder(tmp_path, MADE_OF), (1, 1), replicas=replicas), whole)
    assert (len(own), len(other)) == (2 * SHARED.steps, 2 * SHARED.steps)  # of six batches


def test_devices_do_not_change_one_anothers_precision(model, tmp_path) -> None:
    """Which torch keeps for the process: whoever ended first would set it back for all."""
    preset = SHARED.model_copy(update={"precision": "tf32"})
    seen = []
    replicas = model.replicas(["cpu", "cpu"])
    for one in (model, *replicas):
        one.backbone.register_forward_pre_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    before = torch.get_float32_matmul_precision()
    labels = sample_labels(preset, 10, seed=1)
    sample_batches(model, labels, preset, 1, batches_of(preset), BatchFolder(tmp_path, MADE_OF), "toy", replicas)
    assert set(seen) == {"high"}
    assert torch.get_float32_matmul_precision() == before


def test_a_batch_that_fails_on_one_device_fails_the_whole(model, tmp_path) -> None:
    (replica,) = model.replicas(["cpu"])

    def fail(*_) -> None:
        raise RuntimeError("out of memory")

    replica.backbone.register_forward_pre_hook(fail)
    folder = BatchFolder(tmp_path, MADE_OF)
    with pytest.raises(RuntimeError, match="out of memory"):
        drawn(model, folder, (1, 1), replicas=[replica])
    assert 0 in folder
    assert 1 not in folder


def test_only_what_is_missing_is_drawn(model, whole, tmp_path) -> None:
    """What a killed job leaves: some batches, and perhaps the beginning of a file, under another name."""
    folder = BatchFolder(tmp_path, MADE_OF)
    drawn(model, folder, (1, 1))
    (tmp_path / "batch-00002.npz").unlink()
    (tmp_path / ".batch-00002.npz.host.1.part").write_bytes(b"PK\3\4")
    with calls_of(model.backbone) as calls:
        assert torch.equal(drawn(model, folder, (1, 1)), whole)
    assert len(calls) == SHARED.steps


def test_a_damaged_batch_is_named(model, tmp_path) -> None:
    folder = BatchFolder(tmp_path, MADE_OF)
    folder.save(0, torch.zeros(4, 3, 16, 16, dtype=torch.uint8))
    path = tmp_path / "batch-00000.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"batch-00000\.npz: truncated or damaged .* delete it"):
        folder.load(0)
