"""What pydantic says about a value, as one `ConfigError` that stands where the value stands."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gpupipe.config.source import KeyPath, dotted
from gpupipe.errors import ConfigError, did_you_mean

M = TypeVar("M", bound=BaseModel)


class Locates(Protocol):
    """Anything that can say where a key path stands: a `PipelineConfig` or its `Origin`."""

    def fault(
        self, path: KeyPath, message: str, hint: str | None = None, *, key: bool = False
    ) -> ConfigError: ...


class Misfit(ValueError):  # noqa: N818 - a refusal, not a failure
    """A validator's refusal that names the key at fault and what to do.

    Any ``ValueError(message, hint)`` will do where the key is the value's own.
    """

    def __init__(self, message: str, hint: str | None = None, key: str | None = None) -> None:
        super().__init__(message, hint)
        self.key = key


def validated(model: type[M], raw: Any, config: Locates, path: KeyPath = ()) -> M:
    """``raw`` as a ``model``; ``path`` is where ``raw`` stands in the pipeline file.

    Raises ConfigError at the first fault: unknown keys first (a misspelled key explains
    the missing one), then in the order of the model's fields.
    """
    raw = {} if raw is None else raw
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "extra_forbidden":
            raise _unknown_key(model, detail["loc"], config, path) from None
    first, missing = _data_path(raw, details[0])
    alike = [d for d in details if _data_path(raw, d) == (first, missing)]
    if missing:
        name = dotted((*path, *first))
        raise config.fault(
            (*path, *first), f"{name!r} is missing", _example(model, first), key=True
        ) from None
    raise _wrong_value(raw, first, alike, config, path) from None


def _data_path(raw: Any, detail: ErrorDetails) -> tuple[KeyPath, bool]:
    """The part of a pydantic location that is in the data (it also names union branches)."""
    path: list[str | int] = []
    value = raw
    for part in detail["loc"]:
        held = range(len(value)) if isinstance(value, list) else value
        if isinstance(held, (dict, range)) and part in held:
            value = value[part]
        elif detail["type"] == "missing" and isinstance(value, dict):
            return (*path, part), True
        else:
            continue
        path.append(part)
    return tuple(path), False


def _unknown_key(
    model: type[BaseModel], loc: Sequence[str | int], config: Locates, path: KeyPath
) -> ConfigError:
    owner, name = _section(model, loc[:-1]), str(loc[-1])
    known = list(owner.model_fields)
    near = did_you_mean(name, known)
    if near:
        hint = f"did you mean {near!r}?"
    else:
        inside = [
            f"{outer}.{name}" for outer in known
            if name in _section(owner, (outer,)).model_fields and _section(owner, (outer,)) != owner
        ]
        hint = f"did you mean {inside[0]!r}?" if inside else f"the keys are {', '.join(known)}"
        hint = hint if known else "it takes no parameters"
    section = dotted((*path, *loc[:-1]))
    message = f"unknown key {name!r}" + (f" in {section!r}" if section else "")
    return config.fault((*path, *loc), message, hint, key=True)


def _section(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    """The nested model that a location leads to (the last one on the way)."""
    for part in loc:
        field = model.model_fields.get(str(part))
        for choice in _choices(field.annotation) if field else ():
            if isinstance(choice, type) and issubclass(choice, BaseModel):
                model = choice
    return model


def _choices(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _wrong_value(
    raw: Any, first: KeyPath, alike: list[ErrorDetails], config: Locates, path: KeyPath
) -> ConfigError:
    here = (*path, *first)
    value = raw
    for part in first:
        value = value[part]
    for detail in alike:
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, ValueError):
            message, hint = (*cause.args, None)[:2]
            key = getattr(cause, "key", None)
            return config.fault((*here, key) if key else here, str(message), hint)
    expected = " or ".join(dict.fromkeys(_expected(d) for d in alike))
    name = dotted(here) or "the configuration"
    return config.fault(
        here, f"{name!r}: expected {expected}, found {_found(value)}", _hint(value, alike)
    )


def _hint(value: Any, alike: list[ErrorDetails]) -> str | None:
    kinds = {d["type"] for d in alike}
    if isinstance(value, str):
        known = [k for d in alike if d["type"] == "literal_error" for k in _literals(d)]
        near = did_you_mean(value, known) if known else None
        if near:
            return f"did you mean {near!r}?"
        numeric = value.replace(".", "", 1).replace("_", "").isdigit()
        if numeric and kinds & {"int_type", "float_type"}:
            return "write the number without quotes or underscores"
    elif "string_type" in kinds and isinstance(value, (bool, int, float)):
        return "to mean the text, put it in quotes"
    elif "string_type" in kinds and value is None:
        return "to mean an empty or special text, put it in quotes (a # begins a comment)"
    return None


def _literals(detail: ErrorDetails) -> list[str]:
    expected: str = detail["ctx"]["expected"]
    return expected.replace(" or ", ", ").replace("'", "").split(", ")


_EXPECTED = {
    "int_type": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "string_type": "text", "bool_type": "true or false",
    "list_type": "a list", "dict_type": "a mapping of keys to values",
    "tuple_type": "a list", "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values", "none_required": "null",
    "finite_number": "a finite number", "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}", "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}", "less_than": "less than {lt}",
    "too_short": "at least {min_length} of them", "too_long": "at most {max_length} of them",
    "string_too_short": "text", "string_pattern_mismatch": "text that fits {pattern}",
    "string_too_long": "text of at most {max_length} characters",
}


def _expected(detail: ErrorDetails) -> str:
    phrase = _EXPECTED.get(detail["type"])
    return phrase.format(**detail.get("ctx", {})) if phrase else detail["msg"].lower()


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"


def _example(model: type[BaseModel], path: KeyPath) -> str | None:
    owner = _section(model, path[:-1])
    field = owner.model_fields.get(str(path[-1]))
    return field.description if field and field.description else None
