"""L = L_diff + weight * L_method."""

import torch
from toy import random_backbone, random_batch

from selftrans.methods.method import Context, build_method
from selftrans.objective import objective, velocity_loss


def test_velocity_regression_alone() -> None:
    backbone = random_backbone()
    noised, batch = random_batch()
    losses = objective(backbone, None, 0.0, noised, batch, backbone, step=0)
    predicted = backbone(noised.x_t, noised.t, noised.labels).velocity
    expected = (predicted - (noised.noise - noised.latents)).square().mean()
    torch.testing.assert_close(losses.total, expected)
    assert losses.method == 0


def test_the_method_is_added_with_its_weight() -> None:
    backbone = random_backbone()
    noised, batch = random_batch()
    settings = {"name": "vae_align", "layer": 2}
    method = build_method(settings, Context(backbone, 12, seed=0), torch.Generator().manual_seed(0))
    losses = objective(backbone, method, 0.25, noised, batch, backbone, step=0)
    plain = objective(backbone, None, 0.0, noised, batch, backbone, step=0)
    torch.testing.assert_close(losses.diffusion, plain.total)
    torch.testing.assert_close(losses.total, losses.diffusion + 0.25 * losses.method)


def test_the_cosine_is_taken_over_the_channels_of_each_position() -> None:
    """Of velocities that are twice the target, opposite to it, or orthogonal to it at every position."""
    target = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 5, 6)
    orthogonal = torch.tensor([-4.0, 3.0]).view(1, 2, 1, 1).expand_as(target)
    for velocity, squared, cosine in ((2 * target, 12.5, 1), (-target, 50.0, -1), (orthogonal, 25.0, 0)):
        torch.testing.assert_close(velocity_loss(velocity, target, 0.5), torch.tensor(squared + 0.5 * (1 - cosine)))
        torch.testing.assert_close(velocity_loss(velocity, target, 0.0), torch.tensor(squared))
