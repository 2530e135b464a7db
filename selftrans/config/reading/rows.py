"""runs.yaml at a scale: overrides laid over each row, defaults written out, every layer a number."""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args, get_origin

from selftrans.config.families import TOKEN_PIXELS, Family, PublishedEncoder
from selftrans.config.names import ROW, ROW_IN_WORDS
from selftrans.config.reading.entries import expand, merge, those_like
from selftrans.config.records import check, refuse
from selftrans.config.rows import Row
from selftrans.config.scales import Scale
from selftrans.config.signatures import FRACTION_OF_DEPTH, Epochs, Layer, method_names, signature
from selftrans.errors import UserError


def load_rows(path: Path, scale: Scale, scale_file: Path) -> tuple[dict[str, Row], frozenset[str]]:
    """(rows by name that there are at the scale, names of those that there are not)."""
    raw = expand(path, ROW, ROW_IN_WORDS)
    there = those_like(scale_file, "rows", scale.rows, raw)
    for name in raw.keys() - there:
        _stated(path, name, raw[name])
    raw, absent = {name: raw[name] for name in raw if name in there}, frozenset(raw) - there
    _check_overrides(scale_file, scale, raw)
    return {name: _row(path, name, entry, scale, scale_file) for name, entry in raw.items()}, absent


def _check_overrides(path: Path, scale: Scale, rows: dict[str, Any]) -> None:
    """An override that no row of its family matches is a slip, which would leave the recipe as it was."""
    for name, family in scale.families.items():
        members = [row for row, raw in rows.items() if raw.get("family") == name]
        for number, override in enumerate(family.overrides, start=1):
            if not any(fnmatchcase(row, override.rows) for row in members):
                key = f"families.{name}.overrides.{number}.rows"
                refuse(path, key, override.rows, f"a pattern that matches some of {', '.join(members) or 'no rows'}")


def _row(rows_file: Path, name: str, raw: dict[str, Any], scale: Scale, scale_file: Path) -> Row:
    """A checked row at a scale: overrides laid over it, defaults written out, every layer a number."""
    path: Path | str = rows_file
    row = _stated(path, name, raw)
    family = scale.families.get(row.family)
    for override in family.overrides if family else ():
        if fnmatchcase(name, override.rows):
            raw = merge(raw, override.set)
            path = f"{rows_file} with the overrides of {scale_file}"
            row = _stated(path, name, raw)
    family = scale.families.get(row.family)
    if family is None:
        refuse(path, f"{name}.family", row.family, f"{', '.join(scale.families)} (scale {scale.name})")
    if row.model not in family.models:
        models = ", ".join(family.models)
        refuse(path, f"{name}.model", row.model, f"{models} (family {row.family} at scale {scale.name})")
    if row.method is not None:
        row = row.model_copy(update={"method": _resolved(path, name, row, family)})
    _check_tokens(path, name, row, family)
    return row


def _stated(path: Path | str, name: str, raw: dict[str, Any]) -> Row:
    """A row with the defaults of its method, as far as it can be checked without a scale.

    What an override replaces is wrong all the same: another scale would take it.
    """
    row = check(path, Row, raw, name)
    if row.method is not None:
        method = row.method.get("name")
        if method not in method_names():
            refuse(path, f"{name}.method.name", method, ", ".join(method_names()))
        given = {key: value for key, value in row.method.items() if key != "name"}
        settings = dict(check(path, signature(method).record, given, f"{name}.method"))
        for key, value in settings.items():
            if value == ():
                refuse(path, f"{name}.method.{key}", value, "a list of 1 or more")
        row = row.model_copy(update={"method": {"name": method, **settings}})
    _check_needs(path, name, row)
    return row


def _resolved(path: Path | str, name: str, row: Row, family: Family) -> dict[str, Any]:
    """The method's name and all of its settings, in numbers of this model and this scale."""
    kinds = signature(row.method["name"]).settings
    return row.method | {
        key: _in_numbers(path, f"{name}.method.{key}", row.method[key], kind, row.model, family)
        for key, (kind, _) in kinds.items()
    }


def _in_numbers(path: Path | str, key: str, value: Any, kind: Any, model: str, family: Family) -> Any:
    """A setting of type ``kind`` as the method gets it: layers counted from 1, epochs as optimiser steps."""
    if kind is Layer:
        return _layer(path, key, value, model, family.models[model].depth)
    if kind is Epochs:
        return value * family.steps_per_epoch
    if get_origin(kind) is not tuple:
        return value
    kinds = get_args(kind)
    kinds = kinds[:1] * len(value) if kinds[-1] is ... else kinds
    return tuple(
        _in_numbers(path, f"{key}.{number}", item, kind, model, family)
        for number, (item, kind) in enumerate(zip(value, kinds, strict=True), start=1)
    )


def _layer(path: Path | str, key: str, value: Any, model: str, depth: int) -> int:
    """A layer counted from 1; ``"2n/3"`` is a fraction of the depth, rounded half up."""
    layer = value
    if isinstance(value, str) and (match := re.fullmatch(FRACTION_OF_DEPTH, value)):
        layer = int(depth * int(match[1] or 1) / int(match[2]) + 0.5)
    if not 1 <= layer <= depth:
        refuse(path, key, value, f"1 to {depth} (the depth of {model}), or a fraction of it such as n/2")
    return layer


def _check_needs(path: Path | str, name: str, row: Row) -> None:
    """Teacher, weight and stop are there exactly if the method has a use for them."""
    if row.published is not None:
        for key in ("method", "weight", "stop", "teacher"):
            if getattr(row, key) is not None:
                refuse(path, f"{name}.{key}", getattr(row, key), "nothing, since the row's weights are published")
    method = row.method["name"] if row.method else None
    if row.teacher is None and row.teacher_weights != "ema":
        refuse(path, f"{name}.teacher_weights", row.teacher_weights, "nothing, since the row has no teacher")
    if method is None:
        for key in ("weight", "stop", "teacher"):
            if getattr(row, key) is not None:
                refuse(path, f"{name}.{key}", getattr(row, key), "nothing, since the row has no method")
        return
    if row.weight is None:
        raise UserError(f"{path}: {name}.weight: missing; method {method} needs one, such as 0.5")
    needs_teacher = signature(method).needs_teacher
    if needs_teacher and row.teacher is None:
        raise UserError(f"{path}: {name}.teacher: missing; method {method} needs one, such as sit-b2-vae@40")
    if not needs_teacher and row.teacher is not None:
        refuse(path, f"{name}.teacher", row.teacher, f"nothing, since method {method} takes no teacher")


def _check_tokens(path: Path | str, name: str, row: Row, family: Family) -> None:
    """What is aligned with a published encoder has a token for each of its tokens."""
    if row.method is None or not signature(row.method["name"]).needs_images:
        return
    if isinstance(family.encoder, PublishedEncoder):
        model = family.models[row.model]
        pixels = family.tokenizer.downsampling * model.patch_size
        if pixels != TOKEN_PIXELS:
            tokens = f"a model with a token for {TOKEN_PIXELS}×{TOKEN_PIXELS} pixels, as {family.encoder.published} has"
            refuse(path, f"{name}.model", row.model, f"{tokens}; this one has one for {pixels}×{pixels}")
