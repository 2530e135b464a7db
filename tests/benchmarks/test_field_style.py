"""The baseline in the field's style computes what ours does, only slower: same loss, same gradients, same start."""

import pytest
import torch
from field_style import FieldTrainer, write_random_moments
from toy import smoke_plan

from selftrans.data.batch import Batch
from selftrans.diffusion.interpolant import add_noise
from selftrans.methods.method import Context, build_method
from selftrans.models.backbones import build_backbone
from selftrans.models.teacher import FrozenTeacher
from selftrans.training.objective import objective

CPU = torch.device("cpu")


def weights_of(run):
    """Of a backbone with nothing at zero, so that every part has a gradient."""
    backbone, draws = build_backbone(**run.backbone), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(0, 0.2, generator=draws)
    return backbone


def examples(run, count=6):
    """(noised, batch), the first of whose labels is dropped."""
    sizes, draws = run.backbone, torch.Generator().manual_seed(1)
    shape = (count, sizes["channels"], sizes["input_size"], sizes["input_size"])
    latents, noise = torch.randn(shape, generator=draws), torch.randn(shape, generator=draws)
    labels = torch.arange(count) % sizes["num_classes"]
    dropped = labels.clone()
    dropped[0] = sizes["num_classes"]
    noised = add_noise(latents, dropped, torch.rand(count, generator=draws), noise)
    return noised, Batch(latents, labels, None, None)


@pytest.mark.parametrize("name", ["vanilla", "guided"])
def test_loss_and_gradients_are_ours(tmp_path, name):
    run = smoke_plan().run(name, 0)
    write_random_moments(tmp_path, run, run.family.batch_size)
    backbone, (noised, batch) = weights_of(run), examples(run)
    method = None
    if run.teacher is not None:
        trunk = build_backbone(**run.backbone, blocks=run.teacher.layer)
        trunk.load_state_dict({key: backbone.state_dict()[key] for key in trunk.state_dict()})
        context = Context(backbone, run.model.projector_width, teacher=FrozenTeacher(trunk, run.teacher.layer, {}))
        method = build_method(run.row.method, context, torch.Generator().manual_seed(2))
    field = FieldTrainer(run, tmp_path, CPU, backbone.state_dict())
    if method is not None:
        field.projector.load_state_dict(method.projector.state_dict())

    ours = objective(backbone, method, run.row.weight or 0.0, noised, batch, backbone, 0).total
    theirs = field.loss(noised.x_t, noised.t, noised.labels, batch.labels, noised.velocity)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=0)
    ours.backward()
    theirs.backward()
    pairs = dict(field.model.named_parameters())
    assert set(pairs) == set(dict(backbone.named_parameters()))
    if method is not None:
        pairs |= dict(field.projector.named_parameters(prefix="projector"))
    named = [*backbone.named_parameters(), *(method.named_parameters() if method else ())]
    assert {key for key, _ in named} == set(pairs)
    for key, own in named:
        if own.requires_grad:
            torch.testing.assert_close(pairs[key].grad, own.grad, rtol=1e-3, atol=1e-5 * own.grad.abs().max().item())


@pytest.mark.parametrize("name", ["vanilla", "guided"])
def test_a_step_moves_weights_and_their_average_and_is_logged(tmp_path, name):
    run = smoke_plan().run(name, 0)
    write_random_moments(tmp_path, run, 2 * run.family.batch_size)
    trainer = FieldTrainer(run, tmp_path, CPU, weights_of(run).state_dict())
    before = {key: value.clone() for key, value in trainer.model.named_parameters()}
    for _ in range(3):  # more than one pass through the folder
        trainer.train_step()
    moved = {key for key, value in trainer.model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {key for key, value in trainer.model.named_parameters() if value.requires_grad}
    decay, name = run.family.average.decay, "final_layer.linear.bias"
    trainer.model.final_layer.linear.bias.data.fill_(1.0)
    expected = decay * trainer.ema.final_layer.linear.bias + (1 - decay)
    trainer._update_ema()
    torch.testing.assert_close(dict(trainer.ema.named_parameters())[name], expected)
    assert len(trainer.logged) == 3
    assert all(torch.isfinite(torch.tensor(trainer.logged)).flatten())
