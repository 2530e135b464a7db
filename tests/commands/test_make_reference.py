"""The verb make-reference: parts, killed and gone on with, and the jobs that Snakemake makes of them."""

import pytest

from selftrans.artifacts import read_record
from selftrans.commands import main
from selftrans.data.packed import Packed, write_packed
from selftrans.evaluation import reference
from selftrans.evaluation.extractors import Extractor, SmallClassifier
from selftrans.evaluation.statistics import Statistics
from selftrans.models.fitting import seeded
from selftrans.plan.paths import Pattern
from workflow import snakemake

FAMILY = ("--family", "small", "--threads", "1")


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    """1437 digits, 400 to a block, an extractor that knows nothing, and references of 100 rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reference, "BLOCK", 400)
    monkeypatch.setattr(reference, "ROWS", 100)
    plan = configuration.plan()
    assert main(["pack-images", *FAMILY, "--split", "train"]) == 0
    save_extractor(plan)
    return plan


def save_extractor(plan):
    keys = plan.keys["small"]
    images = plan.path(Pattern.images, data=keys.data, split="train") / "manifest.json"
    made_of = {"images": read_record(images, "packed rows")["sha256"]}
    with seeded(0, "extractor"):
        extractor = Extractor(SmallClassifier(classes=10, size=16), "judge")
    extractor.save(plan.path(Pattern.extractor, extractor=keys.extractor), keys.extractor, made_of)


def file_of(plan):
    return plan.path(Pattern.reference, extractor=plan.keys["small"].extractor)


def blocks_of(plan):
    return plan.path(Pattern.reference_blocks, extractor=plan.keys["small"].extractor)


@pytest.fixture
def shown(monkeypatch):
    """How many images the extractor was shown, batch by batch."""
    features, sizes = SmallClassifier.features, []

    def counted(network, images):
        sizes.append(len(images))
        return features(network, images)

    monkeypatch.setattr(SmallClassifier, "features", counted)
    return sizes


def test_parts_in_any_order_make_the_same_file(plan, capsys, shown):
    assert main(["make-reference", *FAMILY]) == 0
    whole = file_of(plan).read_bytes()
    found = Statistics.load(file_of(plan))
    assert (found.pool.count, len(found.features)) == (1437, 100)
    assert shown == [256, 144] * 3 + [237]  # a batch ends with its block
    file_of(plan).unlink()
    for part in ("2/3", "3/3", "1/3"):
        assert main(["make-reference", *FAMILY, "--part", part]) == 0
        where = {"extractor": plan.keys["small"].extractor, "part": part[0], "parts": 3}
        mark = plan.path(Pattern.reference_part, **where)
        assert read_record(mark, "part") == {
            **{"kind": "part", "key": plan.keys["small"].extractor, "part": int(part[0]), "parts": 3}
        }
        assert capsys.readouterr().out.endswith(f"{mark}: part {part[0]} of 3 is extracted\n")
        assert not file_of(plan).exists()
    shown.clear()
    assert main(["make-reference", *FAMILY]) == 0
    assert shown == []
    assert file_of(plan).read_bytes() == whole
    assert capsys.readouterr().out == f"{file_of(plan)}: 1437 images\n"
    assert not blocks_of(plan).exists()


def test_what_parts_did_not_make_is_made_at_the_end(plan, shown):
    main(["make-reference", *FAMILY, "--part", "2/5"])
    main(["make-reference", *FAMILY, "--part", "5/5"])  # there are but four blocks
    assert shown == [256, 144]
    assert main(["make-reference", *FAMILY]) == 0
    assert sum(shown) == 1437


def test_blocks_of_other_images_are_not_mixed_in(plan, shown):
    """As those are that somebody packed anew, with another image left out."""
    main(["make-reference", *FAMILY, "--part", "1/2"])
    folder = plan.path(Pattern.images, data=plan.keys["small"].data, split="train")
    about = {"key": plan.keys["small"].data, "split": "train"}
    images, labels = Packed(folder, "images").all()
    write_packed(folder, "images", [(images[1:], labels[1:])], count=1436, source={}, about=about)
    save_extractor(plan)
    shown.clear()
    assert main(["make-reference", *FAMILY]) == 0
    assert sum(shown) == 1436


@pytest.mark.parametrize("part", ["0/2", "3/2", "1"])
def test_a_part_that_is_none_is_refused(plan, capsys, part):
    assert main(["make-reference", *FAMILY, "--part", part]) == 2
    said = f"error: --part: found '{part}'; allowed: part K of N, counted from 1, such as 3/8\n"
    assert capsys.readouterr().err == said


def test_who_is_stopped_goes_on_with_the_block_that_it_was_at(plan, shown, monkeypatch):
    counted = SmallClassifier.features

    def stopped(network, images):
        if len(shown) == 5:
            raise KeyboardInterrupt
        return counted(network, images)

    monkeypatch.setattr(SmallClassifier, "features", stopped)
    assert main(["make-reference", *FAMILY]) != 0
    assert shown == [256, 144, 256, 144, 256]
    shown.clear()
    monkeypatch.setattr(SmallClassifier, "features", counted)
    assert main(["make-reference", *FAMILY]) == 0
    assert shown == [256, 144, 237]


# ------------------------------------------------------------------------------------------------- workflow


@pytest.mark.long
@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
def test_parts_are_jobs_of_the_workflow_and_change_nothing(configuration, plan, tmp_path):
    """Three jobs and one that gathers; asked for again, in one piece, there is nothing to do."""
    configuration.family["data"] |= {"parts": 3}
    target, config = file_of(plan), configuration.write()
    made = snakemake("--", str(target), folder=tmp_path, config=config)
    assert made.returncode == 0, made.stderr
    assert {path.name for path in (plan.root / "logs" / "make_reference").iterdir()} == {
        f"{plan.keys['small'].extractor}{part}.log" for part in ("", ".1-of-3", ".2-of-3", ".3-of-3")
    }
    assert not list(plan.root.rglob("*-of-3.json"))
    assert not blocks_of(plan).exists()
    by_three = target.read_bytes()
    configuration.family["data"] |= {"parts": 1}
    configuration.write()
    planned = snakemake("-n", "--", str(target), folder=tmp_path, config=config)
    assert "Nothing to be done" in planned.stdout + planned.stderr
    target.unlink()
    made = snakemake("--", str(target), folder=tmp_path, config=config)
    assert made.returncode == 0, made.stderr
    assert target.read_bytes() == by_three
