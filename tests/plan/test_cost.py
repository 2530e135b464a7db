"""Work, counted by hand."""

import pytest

from selftrans.config.presets import Preset
from selftrans.config.scales import Pace
from selftrans.plan.cost import passes, steps_between


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


def test_steps_on_both_sides_of_a_stop(configuration):
    """Ten guided steps through six blocks and two thirds of the teacher's four, twenty through six."""
    run = configuration.plan().run("guided", 0)
    block = 3 * 4 * 16 * (12 * 16**2 + 2 * 16 * 16) / 1e9  # of four images of 16 tokens of width 16
    pace = Pace(training=block, sampling=1.0, job=7.0, method=1.5)
    guided, alone = 6 + 8 / 3, 6
    assert steps_between(run, 20, 50).seconds(pace) == pytest.approx(7 + 10 * 1.5 * guided + 20 * alone)
    assert steps_between(run, 20, 50).seconds(pace, devices=2) == pytest.approx(7 + 5 * 1.5 * guided + 10 * alone)
    assert steps_between(run, 30, 50).seconds(pace) == pytest.approx(7 + 20 * alone)
    assert steps_between(run, 0, 30).seconds(pace) == pytest.approx(7 + 30 * 1.5 * guided)
    assert steps_between(configuration.plan().run("plain", 0), 0, 10).seconds(pace) == pytest.approx(7 + 10 * alone)
