"""ADM's published samples against its published numbers, where the files are at hand (2 GB; minutes on a GPU).

SELFTRANS_INCEPTION=weights-inception-2015-12-05-6726825d.pth
SELFTRANS_ADM_REFERENCE=VIRTUAL_imagenet256_labeled.npz
SELFTRANS_ADM_SAMPLES=admnet_guided_upsampled_imagenet256.npz
"""

import json
import os
from pathlib import Path

import pytest

from selftrans.commands import main

FILES = {
    "--weights": "SELFTRANS_INCEPTION",
    "--reference": "SELFTRANS_ADM_REFERENCE",
    "--samples": "SELFTRANS_ADM_SAMPLES",
}

# ADM-G, ADM-U at 256 px by the suite's own evaluator, and what its TensorFlow network, its float32 means and its
# float16 distances may make of a difference.
PUBLISHED = {
    "inception_score": (215.837, 0.001 * 215.837),
    "frechet": (3.94256, 0.002),
    "spatial_frechet": (6.140434, 0.002),
    "precision": (0.8265, 0.0015),
    "recall": (0.5309, 0.003),
}


@pytest.mark.skipif(not set(FILES.values()) <= set(os.environ), reason=f"needs {', '.join(FILES.values())}")
def test_adms_samples_have_adms_numbers(tmp_path: Path) -> None:
    given = [word for option, variable in FILES.items() for word in (option, os.environ[variable])]
    assert main(["evaluate", *given, "--output", str(tmp_path / "result.json")]) == 0
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (found["samples"], found["references"]) == (50_000, 10_000)
    for name, (value, band) in PUBLISHED.items():
        assert found[name] == pytest.approx(value, abs=band), name
