"""Work, counted by hand."""

import pytest

from selftrans.config.presets import Preset
from selftrans.plan.cost import passes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sampler": "euler_ode", "steps": 20}, 20),
        ({"sampler": "euler_maruyama_sde", "steps": 50}, 50),
        ({"sampler": "heun_ode", "steps": 20}, 39),
        ({"sampler": "euler_ode", "steps": 20, "cfg_scale": 2.0}, 40),
        ({"sampler": "euler_ode", "steps": 20, "cfg_scale": 2.0, "cfg_interval": (0.0, 0.75)}, 35),
        ({"sampler": "euler_ode", "steps": 20, "cfg_interval": (0.0, 0.75)}, 20),
    ],
)
def test_passes_of_an_image_through_the_model(fields, expected):
    assert passes(Preset(samples=8, **fields)) == pytest.approx(expected)
