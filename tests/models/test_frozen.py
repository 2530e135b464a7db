"""What a frozen network computes in: weights rounded once are those that autocast rounds, float8 is near enough."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from toy import SIZES, random_backbone, random_batch

from selftrans.errors import UserError
from selftrans.models.backbones import build_backbone
from selftrans.models.backbones.backbone import Backbone
from selftrans.models.encoders import Encoder, build_vit
from selftrans.models.fitting import seeded
from selftrans.models.float8 import Float8Linear, rounded
from selftrans.models.frozen import Frozen, Precision, require_float8
from selftrans.models.teacher import FrozenTeacher

LAYER = 3


def learned(kind: str) -> Backbone:
    """A small backbone whose labels count and whose blocks are no identities, as if it had learned something."""
    backbone = build_backbone(backbone=kind, **(SIZES | {"width": 64, "heads": 4}))
    draws = torch.Generator().manual_seed(0)
    backbone.initialise(draws)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "adaLN" in name or "embedding_table" in name:
                parameter.normal_(0, 0.1, generator=draws)
    return backbone


def teacher_features(precision: Precision, kind: str = "sit") -> dict[str, Tensor]:
    """f_c, f_u and f_g at ω = 30."""
    teacher = FrozenTeacher(learned(kind), LAYER, {})
    teacher.compute_in(precision)
    noised, batch = random_batch()
    asked = (noised.x_t, noised.t)
    null = torch.full_like(batch.labels, teacher.backbone.null_label)
    return {
        "f_c": teacher.features(*asked, batch.labels),
        "f_u": teacher.features(*asked, null),
        "f_g": teacher.guided_features(*asked, batch.labels, 30.0),
    }


def encoder() -> Encoder:
    with seeded(0, "encoder"):
        return Encoder(build_vit(classes=10), {"classes": 10})


def error(found: Tensor, exact: Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return ((found.float() - exact.float()).norm() / exact.float().norm()).item()


FEATURES: dict[str, tuple[Callable[[], Frozen], Callable[[Frozen], Tensor]]] = {
    "sit": (
        lambda: FrozenTeacher(random_backbone(), LAYER, {}),
        lambda teacher: teacher.guided_features(*_asked(), 30.0),
    ),
    "lightningdit": (
        lambda: FrozenTeacher(learned("lightningdit"), LAYER, {}),
        lambda teacher: teacher.guided_features(*_asked(), 30.0),
    ),
    "encoder": (encoder, lambda found: found.features(random_batch()[1].images)),
    "its maps": (encoder, lambda found: found.features_and_attention(random_batch()[1].images, (2,))[1][0]),
}


def _asked() -> tuple[Tensor, Tensor, Tensor]:
    noised, batch = random_batch()
    return noised.x_t, noised.t, batch.labels


@pytest.mark.parametrize("name", FEATURES)
def test_weights_that_are_rounded_once_give_what_autocast_gives(name: str) -> None:
    """Bit for bit, whatever the precision of the student is."""
    make, features = FEATURES[name]
    with torch.autocast("cpu", torch.bfloat16):
        expected = features(make())
    once = make()
    once.compute_in("bfloat16")
    assert torch.equal(features(once), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features(once), expected)
    assert not torch.equal(features(make()), expected)
    linear = [part for part in once._network.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    assert {part.weight.dtype for part in linear} == {torch.bfloat16}


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_otherwise_nothing_is_rounded(precision: Precision) -> None:
    exact = FrozenTeacher(learned("sit"), LAYER, {}).guided_features(*_asked(), 30.0)
    assert torch.equal(teacher_features(precision)["f_g"], exact)


def test_a_target_can_be_learned_from() -> None:
    """Tensors of inference mode could not: a loss keeps its target for the backward pass."""
    target = encoder().features(random_batch()[1].images)
    student = torch.zeros_like(target, requires_grad=True)
    torch.nn.functional.mse_loss(student, target).backward()
    torch.testing.assert_close(student.grad, -2 * target / target.numel())
    assert not target.requires_grad


# ------------------------------------------------------------------------------------------------ float8


@pytest.mark.parametrize("kind", ["sit", "lightningdit"])
def test_float8_is_near_enough(kind: str) -> None:
    """A feature is off by 2 %, the extrapolated one by 10 %: ω counts the rounding of a difference ω times."""
    exact = teacher_features("float32", kind)
    bounds = {"bfloat16": {"f_c": 0.004, "f_u": 0.004, "f_g": 0.02}, "float8": {"f_c": 0.02, "f_u": 0.02, "f_g": 0.1}}
    for precision, bound in bounds.items():
        errors = {name: error(found, exact[name]) for name, found in teacher_features(precision, kind).items()}
        assert all(bound[name] / 8 < found < bound[name] for name, found in errors.items()), (precision, errors)


def test_rows_are_rounded_by_scales_of_their_own() -> None:
    """The largest of a row becomes 448, and everything is within half a unit of its three bits."""
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1e-6], [1], [10], [1e4], [0]]
    )
    values, scales = rounded(rows)
    assert values.dtype == torch.float8_e4m3fn
    torch.testing.assert_close(values.float().abs().amax(1), torch.tensor([448.0] * 4 + [0.0]))
    back = values.float() * scales
    assert ((back - rows).abs() <= rows.abs() / 16 + scales * 2**-10).all()


def test_a_float8_product_is_that_of_the_rounded_numbers() -> None:
    draws = torch.Generator().manual_seed(0)
    linear = nn.Linear(32, 48)
    x = torch.randn(2, 3, 32, generator=draws)
    weights, by_channel = rounded(linear.weight.detach())
    tokens, by_token = rounded(x.view(6, 32))
    expected = (tokens.double() * by_token) @ (weights.double() * by_channel).T + linear.bias.double()
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = Float8Linear(linear)(x)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double().view(6, 48), expected, rtol=2**-7, atol=2**-8)


def test_only_blocks_are_in_float8_and_only_what_fits() -> None:
    """Both sizes are multiples of 16; what makes shifts, scales and gates stays in bfloat16."""
    teacher = FrozenTeacher(learned("sit"), LAYER, {})
    names = {name for name, part in teacher.backbone.named_modules() if isinstance(part, nn.Linear)}
    teacher.compute_in("float8")
    halved = {name for name, part in teacher.backbone.named_modules() if isinstance(part, Float8Linear)}
    assert halved == {name for name in names if ".attn." in name or (".mlp." in name and "embedder" not in name)}
    narrow = FrozenTeacher(random_backbone(width=24), LAYER, {})
    narrow.compute_in("float8")
    kinds = {name: type(part) for name, part in narrow.backbone.blocks[0].named_modules()}
    assert kinds["mlp.fc1"] is nn.Linear  # 24 -> 96


def test_a_gpu_without_float8_is_refused() -> None:
    require_float8("NVIDIA H200", (9, 0))
    require_float8("NVIDIA B200", (10, 0))
    with pytest.raises(UserError, match=r"teacher_precision: found float8, of which NVIDIA A100 has no products"):
        require_float8("NVIDIA A100", (8, 0))


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0), reason="no GPU with float8"
)
def test_a_gpu_multiplies_the_same_numbers() -> None:
    layer = Float8Linear(nn.Linear(64, 96))
    x = torch.randn(5, 7, 64, generator=torch.Generator().manual_seed(0))
    exact = layer(x)
    found = copy.deepcopy(layer).cuda()(x.cuda()).cpu()
    torch.testing.assert_close(found, exact, rtol=2**-6, atol=2**-7)
