"""Features of the training images (10,000 of them, evenly spread, if there are more), and moments of all of them, that
samples are compared with. Images are packed where VAE or extractor are trained on them, else they are read straight
from the data source. The work may be shared among processes or machines (--part); killed, the same command goes on with
the block of images that it was at.
"""

import argparse
import shutil
from typing import TYPE_CHECKING

from selftrans.commands.common import (
    add_extractor,
    add_part,
    cpus,
    devices,
    extractor_of,
    family_of,
    images_of,
    need,
    part_of,
    plan_of,
)
from selftrans.config.families import ClassifierRecipe, Family
from selftrans.errors import UserError
from selftrans.plan.paths import Pattern

if TYPE_CHECKING:
    from selftrans.data.stream import ImageStream


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extractor(parser)
    add_part(parser)


def run(arguments: argparse.Namespace) -> None:
    """Extract a family's reference, or a part of it."""
    from selftrans.artifacts import write_record
    from selftrans.data.packed import with_unreadable
    from selftrans.evaluation.published import load_extractor
    from selftrans.evaluation.reference import PackedListing, ReferenceWriter

    plan = plan_of(arguments)
    family, keys = family_of(arguments, plan)
    recipe, key = extractor_of(arguments, plan)
    part, parts = part_of("--part", arguments.part)
    trained = {}
    if family.compares_packed_images(recipe):
        packed = images_of(plan, keys, "train")
        trained = {"made_of": {"images": packed.sha256}} if isinstance(recipe, ClassifierRecipe) else {}
        images, where = PackedListing(packed, packed.sha256), str(packed.folder)
    else:
        images = stream_of(family, cpus(arguments))
        where = images.where
    extractor = load_extractor(need(plan.path(Pattern.extractor, extractor=key)), {"key": key, **trained})
    folder = plan.path(Pattern.reference_blocks, extractor=key)
    writer = ReferenceWriter(folder, images, extractor.on(devices()), key)
    try:
        writer.make(part, parts)
        if parts > 1:
            path = plan.path(Pattern.reference_part, extractor=key, part=part, parts=parts)
            write_record(path, "part", {"key": key, "part": part, "parts": parts})
            print(f"{path}: part {part} of {parts} is extracted")
            return
        reference, unreadable = writer.gather()
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    path = plan.path(Pattern.reference, extractor=key)
    reference.save(path, key)
    shutil.rmtree(folder, ignore_errors=True)  # what another job is about to leave there is no harm
    print(with_unreadable(f"{path}: {len(images) - len(unreadable)} images", unreadable))


def stream_of(family: Family, threads: int) -> "ImageStream":
    """A family's training images, straight from their files."""
    from selftrans.data.sources import open_source
    from selftrans.data.stream import ImageStream

    data = family.data
    source = open_source(data, "train")
    return ImageStream(source, data.path or data.source, data.size, threads, data.max_broken)
