"""YAML -> frozen pydantic records; what is wrong is said with file, key, value and what is allowed."""

import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from selftrans.errors import UserError
from selftrans.files import require_regular


class Record(BaseModel):
    """A frozen record that refuses unknown keys and strings for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


R = TypeVar("R", bound=Record)


def refuse(path: Path | str, key: str, found: Any, allowed: str) -> NoReturn:
    """Raise the UserError that every wrong value gets."""
    raise UserError(f"{path}: {key}: found {found!r}; allowed: {allowed}")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (4e-3 is one); sequences are tuples; a key that stands twice is an error."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:float"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|nan)$"),
    list("-+0123456789."),
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = []
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in keys:
            problem = f"key {key!r} stands twice in one mapping"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        keys.append(key)
    return loader.construct_mapping(node, deep=True)


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Loader.add_constructor("tag:yaml.org,2002:seq", _tuple)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of names. Raises UserError if the file is missing, malformed or something else."""
    require_regular(path)
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: {line}not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        found = "nothing" if value is None else repr(value)
        raise UserError(f"{path}: found {found}; allowed: a mapping of names to entries")
    for key in value:
        if not isinstance(key, str):
            refuse(path, str(key), key, "a name as the key")
    return value


def check(path: Path | str, kind: type[R], value: Any, where: str = "") -> R:
    """Validate ``value`` as ``kind``; a UserError names file, key, value and what is allowed, a line each."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        lines = [_sentence(path, where, kind, item) for item in error.errors()]
        raise UserError("\n".join(lines)) from None


# What pydantic says in its own words, in ours.
_ALLOWED = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} at most",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
}


def _sentence(path: Path | str, where: str, kind: type[Record], item: dict[str, Any]) -> str:
    """One error of pydantic, with list entries counted from 1."""
    keys, _ = _follow(kind, item["loc"])
    key = ".".join([where] * bool(where) + keys) or "the file"
    if item["type"] == "missing":
        needed = [name for name, field in _fields_at(kind, item["loc"][:-1]).items() if field.is_required()]
        return f"{path}: {key}: missing; needed: {', '.join(needed) or 'a value'}"
    if item["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(kind, item["loc"][:-1])) or "no key at all"
        return f"{path}: {key}: unknown key; allowed: {allowed}"
    words = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    allowed = _ALLOWED[item["type"]].format(**item.get("ctx", {})) if item["type"] in _ALLOWED else words
    return f"{path}: {key}: found {item['input']!r}; allowed: {allowed}"


def _fields_at(kind: Any, location: tuple[int | str, ...]) -> dict[str, FieldInfo]:
    """The fields of the record that ``location`` leads to, none if it leads to something else."""
    kind = _follow(kind, location)[1]
    return kind.model_fields if _is_record(kind) else {}


def _follow(kind: Any, location: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """The keys of the file in a location of pydantic's, which has more than these, and what is expected there."""
    keys = []
    for part in location:
        if get_origin(kind) in (Union, UnionType):
            members = [getattr(arg, "__origin__", arg) for arg in get_args(kind) if arg is not NoneType]
            if len(members) > 1:  # here it says as which of them it took the value
                kind = next((member for member in members if getattr(member, "__name__", "") == part), None)
                continue
            kind = members[0]
        if part != "[key]":
            keys.append(str(part + 1) if isinstance(part, int) else part)
        if _is_record(kind):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:  # inside dict[Name, X] or tuple[X, ...]
            kind = next((arg for arg in reversed(get_args(kind)) if arg is not ...), None)
    return keys, kind


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
