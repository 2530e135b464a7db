"""Features of all training images, and their moments, that samples are compared with."""

import argparse

from selftrans.commands.common import add_family, family_of, need, plan_of, read_split
from selftrans.paths import Pattern


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_family(parser)


def run(arguments: argparse.Namespace) -> None:
    """Extract a family's reference."""
    from selftrans.evaluation.extractors import Extractor
    from selftrans.evaluation.statistics import Statistics

    plan = plan_of(arguments)
    _, keys = family_of(arguments, plan)
    extractor = Extractor.load(need(plan.path(Pattern.extractor, extractor=keys.extractor)))
    images, _ = read_split(plan, keys, "train")
    path = plan.path(Pattern.reference, extractor=keys.extractor)
    Statistics.gather(extractor.extract(images), extractor.name, extractor.sha256).save(path)
    print(f"{path}: {len(images)} images")
