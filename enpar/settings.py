"""How settings are given: a job is a YAML file with dotted overrides on top; every mistake in it is one line."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from enpar.errors import UserError


class Settings(BaseModel):
    """The base of all settings: unknown keys, wrong types and impossible values are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    variants: ClassVar[Mapping[str, type["Settings"]]] = {}
    """By the value of `stage`: the settings that take the place of these, where a command has several kinds."""


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], arguments: Sequence[str]) -> S:
    """The settings that a command line asks for.

    Args:
        kind: the model of the command's settings.
        arguments: YAML files and dotted overrides (`train.steps=100`), later ones over earlier ones.

    Raises:
        UserError: a file is missing or is no YAML mapping, or a setting is unknown, missing or impossible.
    """
    merged: dict[str, Any] = {}
    for argument in arguments:
        if "=" in argument:
            _set(merged, *argument.split("=", 1))
        else:
            _merge(merged, _read_yaml(Path(argument)))
    return validate(cast(type[S], kind.variants.get(str(merged.get("stage")), kind)), merged)


def validate(kind: type[S], values: Mapping[str, Any], name: Callable[[str], str] = str) -> S:
    """The settings that these values make; `name` says what a refused dotted key is called.

    Raises:
        UserError: a setting is unknown, missing or impossible.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(name(path) + said for path, said in _refused(error, kind))) from None


def put(settings: dict[str, Any], key: str, value: Any) -> None:  # noqa: ANN401 - any value of a setting
    """Set a dotted key in nested settings."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = settings.setdefault(parent, {})
        if not isinstance(inner, dict):
            inner = settings[parent] = {}
        settings = inner
    settings[last] = value


def dotted(
    settings: Mapping[str, Any], whole: Callable[[Mapping[str, Any]], bool] = lambda _: False, prefix: str = ""
) -> dict[str, Any]:
    """Nested settings by their dotted keys; a mapping that is empty or `whole` is a value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and not whole(value):
            flat |= dotted(value, whole, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe(
    kind: type[Settings], prefix: str = "", defaults: Settings | None = None
) -> Iterator[tuple[str, str, str]]:
    """(dotted key, default, description) of every setting, for the help of a command.

    Args:
        kind: the model of the settings.
        prefix: what the dotted keys begin with.
        defaults: settings whose values are the defaults, in place of the model's own.
    """
    for name, field in kind.model_fields.items():
        default = field.default if defaults is None else getattr(defaults, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            inner = default if isinstance(default, Settings) else None
            yield from describe(field.annotation, f"{prefix}{name}.", inner)
        elif defaults is None and field.is_required():
            yield prefix + name, "required", field.description or ""
        else:
            value = str(default) if isinstance(default, Path) else default
            shown = yaml.safe_dump(value, default_flow_style=True, width=math.inf).split("\n")[0]
            yield prefix + name, shown, field.description or ""


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}; arguments are YAML files or dotted settings such as seed=2"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: expected a mapping of settings")
    return content or {}


def _set(settings: dict[str, Any], key: str, text: str) -> None:
    """Set a dotted key; the value is YAML, so that numbers, lists and null mean what they look like."""
    try:
        value = text if text in ("", "-") else yaml.safe_load(text)  # "-" is standard input or output, no list
    except yaml.YAMLError:
        value = text
    # A folder may be called 2026_01, 2026-01-01 or no; the setting's type says what it is.
    number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, date) or (number and str(value).lower() != text.lower()):
        value = text
    put(settings, key, value)


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _refused(error: ValidationError, kind: type[Settings]) -> Iterator[tuple[str, str]]:
    """Dotted key and reason of each refused setting, such as `train.steps` and `: expected …, got 'many'`."""
    for detail in error.errors():
        path = ".".join(str(part) for part in detail["loc"])
        yield path or "settings", f": {_reason(detail, kind)}"


def _reason(detail: ErrorDetails, kind: type[Settings]) -> str:
    if detail["type"] == "extra_forbidden":
        return f"no such setting; known here: {', '.join(_siblings(kind, detail['loc']))}"
    if detail["type"] == "missing":
        return "must be given"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message + (f", got {detail['input']!r}" if detail["type"] != "value_error" else "")


def _siblings(kind: type[Settings], location: tuple[int | str, ...]) -> list[str]:
    parts = iter(location[:-1])
    for part in parts:
        annotation = kind.model_fields[str(part)].annotation if str(part) in kind.model_fields else None
        inner = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, Settings)]
        if not inner:
            break
        kind = inner[0]
        if get_args(annotation):  # of a mapping, whose key is no field
            next(parts, None)
    return list(kind.model_fields)
