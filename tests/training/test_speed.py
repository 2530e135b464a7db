"""Turns, clocks, and trainings on random latents that are those of the run."""

import time
import weakref

import pytest
import torch
from toy import smoke_plan

from selftrans.training.speed import RandomTraining, clock_of, ratio, take_turns

CPU = torch.device("cpu")


def test_each_takes_its_turn_anew_and_the_first_turn_and_step_do_not_count():
    """Two steps of 1 s and of 3 s on a clock of our own; the first turn takes ten times as long."""
    now, calls = [0.0], []

    def contender(name, seconds):
        def make():
            calls.append(name)
            first = calls.count(name) == 1
            lengths = iter([100.0, seconds, seconds])

            def step():
                now[0] += next(lengths) * (10 if first else 1)

            return step

        return make

    turns = []
    found = take_turns(
        {"a": contender("a", 1.0), "b": contender("b", 3.0)}, rounds=2, steps=2, clock=lambda: now[0], tell=turns.append
    )
    assert found == {"a": [1.0, 1.0], "b": [3.0, 3.0]}
    assert (calls, turns) == (["a", "b"] * 3, [0, 1, 2])


def test_one_contender_at_a_time_is_in_memory():
    """Also if what takes its steps holds on to itself, as a model with hooks does."""
    alive = weakref.WeakSet()

    class Model:
        def __init__(self):
            assert not alive
            alive.add(self)
            self.hook = self.step

        def step(self):
            pass

    take_turns({"a": lambda: Model().step, "b": lambda: Model().step}, rounds=1, steps=1, clock=time.perf_counter)


def test_ratios_are_those_of_a_turn():
    """A turn in which everything is slow says as much as the others."""
    assert ratio([1.0, 10.0, 2.0], [2.0, 20.0, 4.0]) == 2.0


def test_on_one_thread_the_clock_stands_still_while_nothing_is_computed():
    found = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        clock = clock_of(CPU)
        began = clock()
        time.sleep(0.05)
        assert clock() - began < 0.05
        torch.set_num_threads(2)
        clock = clock_of(CPU)
        began = clock()
        time.sleep(0.05)
        assert clock() - began >= 0.05
    finally:
        torch.set_num_threads(found)


@pytest.mark.parametrize("name", ["vanilla", "aligned", "external", "guided"])
def test_a_training_on_random_latents_is_that_of_the_run(name):
    training = RandomTraining(smoke_plan().run(name, 0), CPU)
    trainer = training.trainer()
    trainer.train_step()
    assert (trainer.step, trainer.method is None) == (1, name == "vanilla")
    (values,) = trainer.drain()
    assert (values["method"] == 0) == (name == "vanilla")
    step = training()
    assert step.__self__ is not trainer
    assert step.__self__.step == 0


def test_after_the_stop_there_is_no_method_and_nothing_that_it_needed():
    run = smoke_plan().run("guided", 0)
    training = RandomTraining(run, CPU, stopped=True)
    trainer = training.trainer()
    assert training.context == {}
    assert (trainer.method, trainer.step) == (None, run.recipe["stop"])
    trainer.train_step()
    assert trainer.drain()[0]["method"] == 0
