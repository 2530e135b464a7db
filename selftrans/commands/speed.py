"""Rows take turns on random latents, so nothing has to be made before; the figures are those of this machine."""

import argparse

from selftrans.commands.common import add_extent, device, plan_of
from selftrans.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)
    parser.add_argument("--rounds", type=_count, default=7, metavar="N", help="turns of each row (default: 7)")
    parser.add_argument("--steps", type=_count, default=10, metavar="N", help="steps of a turn (default: 10)")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: 1 or more")
    return int(text)


def run(arguments: argparse.Namespace) -> None:
    """Write results/speed.csv and the same as .md."""
    import torch

    from selftrans.files import write_text
    from selftrans.plan.speed import SPEED, paper_file, phases_of, timed_runs
    from selftrans.progress import progress_bar
    from selftrans.provenance import provenance
    from selftrans.reporting.csv import write_csv
    from selftrans.reporting.results import RESULTS, publish
    from selftrans.reporting.speed import build_speed, read_speeds, speed_to_markdown, speed_to_text
    from selftrans.training.speed import RandomTraining, clock_of, take_turns

    plan, where = plan_of(arguments), device()
    phases = phases_of(timed_runs(plan))
    if not phases:
        raise UserError(
            f"{plan.project.scale_file}: no row of Self-Transcendence is kept that has a vanilla one of its model "
            f"beside it, or there is no {paper_file(plan)}; so there is no speed to compare"
        )
    read_speeds(plan)  # before minutes are spent
    trainings = {phase.kind: RandomTraining(phase.run, where, phase.stopped) for phase in phases}
    with progress_bar(arguments.rounds + 1, "speed", "turn") as bar:
        seconds = take_turns(trainings, arguments.rounds, arguments.steps, clock_of(where), lambda turn: bar.update())
    versions = provenance()
    machine = {"device": where.type, "threads": torch.get_num_threads()}
    machine |= {key: versions[key] for key in ("machine", "torch", "commit")}
    machine |= {"turns": arguments.rounds, "steps_of_a_turn": arguments.steps}
    frame = build_speed(plan, seconds, machine)
    csv, markdown = RESULTS / f"{SPEED}.csv", RESULTS / f"{SPEED}.md"
    write_text(markdown, speed_to_markdown(plan, frame))
    write_csv(csv, frame)
    turns = {phase.label: seconds[phase.kind] for phase in phases}
    publish(plan, SPEED, [csv, markdown], machine=machine, seconds_per_step=turns)
    print(speed_to_text(frame))
