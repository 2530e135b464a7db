"""Driver and build of torch, from the texts that they leave; what torch makes of GPUs, where there are any."""

import importlib.metadata
import sys

import pytest
import torch

from selftrans.doctor import devices
from selftrans.doctor.devices import (
    Gpu,
    build,
    driver_answers,
    expected,
    gpus,
    hidden,
    kernel_driver,
    shared_memory,
    torch_build,
    torch_sees,
)
from selftrans.errors import UserError

CUDA, CPU = ("2.12.0", "13.0"), ("2.12.0+cpu", None)
# /proc/driver/nvidia/version of a proprietary and of an open kernel module.
VERSIONS = {
    "535.104.05": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    "GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)\n",
    "580.65.06": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n",
}


def levels(findings):
    return [finding.level for finding in findings]


def test_the_build_of_torch_is_read_without_importing_it():
    assert torch_build() == (importlib.metadata.version("torch"), torch.version.cuda)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_driver_is_read_from_the_kernel(tmp_path, version):
    assert kernel_driver(tmp_path) is None
    (tmp_path / "version").write_text(VERSIONS[version])
    for number in range(2):
        (tmp_path / "gpus" / f"0000:0{number}:00.0").mkdir(parents=True)
    assert kernel_driver(tmp_path) == (version, 2)


@pytest.mark.parametrize(
    ("torch_and_cuda", "driver", "level"),
    [
        (CUDA, None, "ok"),
        (CPU, None, "ok"),
        (CUDA, ("580.65.06", 8), "ok"),
        (CUDA, ("580.65.06", 0), "ok"),  # a driver, and no GPU
        (CUDA, ("535.104.05", 8), "wrong"),
        (("2.12.0", "12.8"), ("535.104.05", 8), "ok"),
        (CPU, ("580.65.06", 8), "wrong"),
    ],
)
def test_torch_and_driver_go_together_or_not(torch_and_cuda, driver, level):
    (found,) = build(torch_and_cuda, driver, {})
    assert found.level == level
    assert bool(found.advice) == (level == "wrong")


def test_what_the_user_hides_is_not_missed():
    for nothing in ("", "-1"):
        assert hidden({"CUDA_VISIBLE_DEVICES": nothing})
        (found,) = build(CPU, ("580.65.06", 8), {"CUDA_VISIBLE_DEVICES": nothing})
        assert (found.level, found.what) == ("ok", f"CUDA_VISIBLE_DEVICES={nothing}: no GPU is used")
    assert not hidden({})
    said, found = build(CPU, ("580.65.06", 8), {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (said.what, found.level) == ("CUDA_VISIBLE_DEVICES=0,1", "wrong")


def test_libraries_for_older_drivers_are_trusted():
    environment = {"LD_LIBRARY_PATH": "/usr/local/cuda/compat:/usr/lib"}
    assert levels(build(CUDA, ("535.104.05", 8), environment)) == ["ok"]


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A stand-in that does what a test says."""
    monkeypatch.setenv("PATH", f"{tmp_path}")

    def write(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return write


def test_nvidia_smi_names_gpus_or_what_is_the_matter(nvidia_smi):
    assert list(driver_answers()) == []
    nvidia_smi("echo '0, NVIDIA A100-SXM4-80GB, 81920 MiB, 4 MiB, 580.65.06'")
    (found,) = driver_answers()
    assert (found.level, "NVIDIA A100-SXM4-80GB" in found.what) == ("ok", True)
    nvidia_smi("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    (found,) = driver_answers()
    assert (found.level, found.what.endswith("version mismatch")) == ("wrong", True)


def test_gpus_are_expected_where_there_is_a_driver(nvidia_smi, monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "kernel_driver", lambda: None)
    assert not expected()
    nvidia_smi("exit 0")
    assert expected()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not expected()


def test_a_gpu_that_computes_wrongly_or_is_taken_is_said():
    good = {"name": "A100", "free": 79 * 10**9, "total": 80 * 10**9}
    good |= {"right": True, "bfloat16": True, "right_bfloat16": True}
    changes = [{}, {"right": False}, {"right_bfloat16": False}, {"bfloat16": False}, {"free": 10**9}]
    found = list(torch_sees([Gpu(**good | change) for change in changes]))
    assert levels(found) == ["ok", "wrong", "wrong", "warning", "warning"]
    assert levels(torch_sees([])) == ["wrong"]


def test_torch_is_asked_in_a_process_of_its_own():
    """On a machine without GPUs it finds none; where there are some, they compute rightly."""
    found = gpus()
    assert len(found) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
    assert all(gpu.right and gpu.right_bfloat16 and gpu.free <= gpu.total for gpu in found)


def test_what_torch_dies_of_is_said(monkeypatch, tmp_path):
    broken = tmp_path / "probe.py"
    broken.write_text("raise RuntimeError('CUDA error: no kernel image is available')")
    monkeypatch.setattr(devices, "PROBE", broken)
    with pytest.raises(UserError, match="no kernel image is available"):
        gpus()


def test_shared_memory_matters_to_several_ranks(tmp_path):
    assert list(shared_memory(1)) == []
    assert list(shared_memory(2, tmp_path / "nowhere")) == []
    if sys.platform == "linux":
        assert levels(shared_memory(2, tmp_path)) == ["ok"]
