"""What only a GPU can show; elsewhere these are skipped."""

from pathlib import Path

import pytest
import torch
from ranks import CASES, trainer_of

from selftrans.training.distributed import Ranks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    """As in a process of its own."""
    torch.compiler.reset()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_nothing(name: str, compiled: bool, tmp_path: Path) -> None:
    """torch raises at whatever would make the host wait for the GPU."""
    trainer = trainer_of(name, tmp_path, Ranks(torch.device("cuda")), compile=compiled)
    trainer.train_step()  # caches of constants, and of what kernel is fastest
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            trainer.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(trainer.drain()) == 6


@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_takes_the_steps_of_a_cpu(compiled: bool, tmp_path: Path) -> None:
    losses = []
    for device in ("cpu", "cuda"):
        ranks = Ranks(torch.device(device))
        trainer = trainer_of("averaged", tmp_path / device, ranks, compile=compiled and device == "cuda")
        for _ in range(5):
            trainer.train_step()
        losses.append([value["loss"] for value in trainer.drain()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
