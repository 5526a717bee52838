"""Trees of dataclasses and nested dictionaries, read strictly: unknown keys and wrong types raise `ValueError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints


def plain(value: object) -> object:
    """A dataclass as nested dictionaries of what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' or nothing; a bare last part is compared with the last parts of dotted names as well."""
    known = list(known)
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not matches:
        last = {k.rsplit(".", 1)[-1]: k for k in known}
        matches = [last[m] for m in difflib.get_close_matches(name.rsplit(".", 1)[-1], last, n=1, cutoff=0.5)]
    return f" Did you mean {matches[0]!r}?" if matches else ""


def dotted_names(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of all leaves, e.g. `loss.lambda_sum`."""
    names: list[str] = []
    for key, value in tree.items():
        names += dotted_names(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def child(node: Mapping[str, Any], key: str, dotted: str) -> dict[str, Any]:
    """The section `key` of `node`; `dotted` is the whole name, for the message."""
    section = node.get(key)
    if not isinstance(section, dict):
        sections = [k for k, v in node.items() if isinstance(v, dict)]
        raise ValueError(f"no section {key!r} (in {dotted!r}); expected one of {', '.join(sections)}.")
    return section


def build(kind: type, tree: Any, where: str) -> object:
    """An instance of the dataclass `kind`; missing keys take their defaults. `where` prefixes names in messages."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where.rstrip('.') or 'configuration'} is {tree!r}; expected an object with named values.")
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]
    unknown = [key for key in tree if key not in names]
    if unknown:
        place, _, section = where.rpartition(": ")  # a file's name before the sections, where there is a file
        raise ValueError(f"{place or 'configuration'} has no {section + unknown[0]!r}.{nearest(unknown[0], names)}")
    return kind(**{key: _convert(value, hints[key], where + key) for key, value in tree.items()})


def _convert(value: Any, kind: Any, name: str) -> object:
    """`value` as the annotated type `kind`; text is read as that type."""
    if is_dataclass(kind):
        return build(cast(type, kind), value, name + ".")
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, get_args(kind)))}.")
        return cast(object, value)
    if get_origin(kind) is tuple:
        parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) != len(get_args(kind)):
            raise ValueError(f"{name} is {value!r}; expected {len(get_args(kind))} numbers.")
        return tuple(_convert(part, t, name) for part, t in zip(parts, get_args(kind), strict=True))
    return _convert_scalar(value, kind, name)


def _convert_scalar(value: Any, kind: type, name: str) -> int | float | str:
    expected = {int: "a whole number", float: "a number", str: "text"}[kind]
    wrong = isinstance(value, bool) or (kind is str and not isinstance(value, str))
    try:
        converted: int | float | str = kind(value)
    except (TypeError, ValueError, OverflowError):
        wrong = True
    else:
        wrong = wrong or (kind is int and isinstance(value, float) and value != int(value))
        wrong = wrong or (kind is float and not abs(float(converted)) < float("inf"))
    if wrong:
        raise ValueError(f"{name} is {value!r}; expected {expected}.")
    return converted
