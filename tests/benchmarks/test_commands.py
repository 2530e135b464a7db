"""The benchmarks measure what their options say, and print JSON of one skeleton."""

import argparse
import json
import sys

import pytest
import reader_speed
import sampling_speed
import training_speed
import vae_speed
from report import KEYS

SMALL = ("--width", "64", "--tokens", "4", "--batch-size", "2", "--rounds", "1", "--steps", "1")

# Benchmark -> (module, options, medians, ratios).
CALLS = {
    "training": (
        training_speed,
        ("--against", "field", *SMALL),
        {"ours, vanilla", "field's, vanilla", "ours, guided", "field's, guided"},
        {
            "ours to field's, vanilla",
            "ours to field's, guided",
            "guided to vanilla, ours",
            "guided to vanilla, field's",
        },
    ),
    "sampling": (
        sampling_speed,
        ("--scale", "demo", "--rounds", "1"),
        {"euler_ode", "euler_ode, bare", "field's, guided"},
        {"euler_ode: takes, of bare", "guided: as fast as the field's"},
    ),
    "vae": (
        vae_speed,
        ("--batch-size", "2", "--rounds", "1"),
        {"encode", "encode, bare", "decode", "decode, bare"},
        {"encode: of bare", "decode: of bare"},
    ),
    "reader": (
        reader_speed,
        ("--rows", "8", "--images", "4", "--batch-size", "4", "--batches", "2", "--threads", "1"),
        {"moments, float32, 1 threads", "images, compressed, 1 threads"},
        {"images, raw, 1 threads: times the fastest step"},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_benchmark_prints_what_it_measured(name, monkeypatch, capsys):
    module, options, medians, ratios = CALLS[name]
    monkeypatch.setattr(sys, "argv", [module.__file__, *options])
    module.main()
    report = json.loads(capsys.readouterr().out)
    assert set(report) >= set(KEYS)
    assert set(report["medians"]) >= medians
    assert set(report["ratios"]) >= ratios
    assert min(report["medians"].values()) >= 0
    assert report["command"].startswith(f"python benchmarks/{name}_speed.py {options[0]}")


def options(**given):
    keys = ("width", "tokens", "batch_size", "compile", "precision", "draws", "micro_batch", "methods")
    return argparse.Namespace(**(dict.fromkeys(keys) | {"scale": "demo", "model": "sit-b2"} | given))


def test_a_model_is_named_as_its_row(monkeypatch):
    """At the paper's scale, XL has rows of some methods, and trains an image with 0.71 TFLOP."""
    runs = training_speed.runs_of(options(scale="imagenet", model="sit-xl2"))
    assert (runs["vanilla"].name, runs["repa"].name) == ("sit-xl2", "sit-xl2-repa")
    assert "irepa" not in runs
    assert training_speed.size_of(runs["vanilla"])["gflop_of_an_image"] == pytest.approx(710, abs=1)
    assert training_speed.runs_of(options(scale="imagenet", model="ldit-xl1"))["vanilla"].family.batch_size == 1024


def test_sizes_and_keys_of_the_family_are_those_asked_for():
    asked = options(width=128, tokens=64, batch_size=8, precision="bfloat16", micro_batch=4, methods="repa,dispersive")
    runs = training_speed.runs_of(asked)
    assert list(runs) == ["vanilla", "repa", "dispersive"]
    run = runs["vanilla"]
    assert (run.model.width, run.model.heads, run.tokens) == (128, 2, 64)
    assert (run.family.batch_size, run.family.micro_batch, run.family.precision) == (8, 4, "bfloat16")
    assert runs["dispersive"].row.method["group"] == 8
