"""Settings that are written once: a field has its default, range, choices and meaning.

    @dataclasses.dataclass(frozen=True)
    class Optim:
        momentum: float = setting(0.9, "of the gradients", low=0, high=1)

From such a dataclass, which may hold others, come the values that mappings give
(``build``), their checks (``check``), and flags of a command line (``define_flags``).
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from apr_jax.errors import ConfigError

T = TypeVar("T")


def setting(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] = (),
    incidental: bool = False,
    repeated: bool = False,
) -> Any:
    """A field of a frozen dataclass of settings.

    Args:
        default: its value where nothing else is said.
        meaning: for readers and ``--help``, with the unit.
        low, high: the range allowed, ends included; of a tuple, of each item.
        above: what the value, or each item of a tuple, must be above.
        choices: the values allowed; of a tuple, of each item or of the whole.
        incidental: whether it says where and how fast, not what is computed.
        repeated: whether its flag is given once for each item.
    """
    metadata = {
        "meaning": meaning,
        "low": low,
        "high": high,
        "above": above,
        "choices": choices,
        "incidental": incidental,
        "repeated": repeated,
    }
    return dataclasses.field(default=default, metadata=metadata)


def leaves(
    settings: Any, prefix: str = ""
) -> Iterator[tuple[str, Any, "dataclasses.Field[Any]"]]:
    """Yields (dotted name, value, field) of each setting, in order of declaration."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field


def choices(cls: type, name: str) -> tuple[Any, ...]:
    """The values that a field of a dataclass may have."""
    (field,) = (f for f in dataclasses.fields(cls) if f.name == name)
    found: tuple[Any, ...] = field.metadata["choices"]
    return found


def build(base: T, values: Any, prefix: str = "") -> T:
    """Makes settings of others and of nested mappings with what differs; checks them.

    Args:
        base: a dataclass of settings, whose values stay where nothing else is said.
        values: field -> value; of a group, a mapping itself. Lists become tuples,
            integers become floats where a float is wanted; nothing else is converted.
        prefix: of the names in messages, such as "eval.".

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or isn't allowed.
            The message names the field, the value and the choices.
    """
    built = _build(base, values, prefix)
    check(built, prefix)
    return built


def _build(base: T, values: Any, prefix: str) -> T:
    where = prefix.rstrip(".") or "the configuration"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}; it must be a group of fields")
    fields: dict[str, Any] = {f.name: f for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    built = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(
                f"unknown field {prefix}{name} = {value!r}; "
                f"{where} has {', '.join(fields)}"
            )
        there = getattr(base, name)
        if dataclasses.is_dataclass(there):
            built[name] = _build(there, value, f"{prefix}{name}.")
        else:
            built[name] = _convert(fields[name].type, value, f"{prefix}{name}")
    return dataclasses.replace(base, **built)  # type: ignore[type-var]


def _convert(hint: Any, value: Any, field: str) -> Any:
    """Returns ``value`` as the hinted type, or raises ConfigError."""
    if isinstance(hint, types.GenericAlias):  # tuple[X, ...]
        (item, _) = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{field} is {value!r}; it must be a tuple of {item.__name__}"
            )
        return tuple(_convert(item, v, field) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise ConfigError(
        f"{field} is {value!r} of type {type(value).__name__}; "
        f"it must be of type {hint.__name__}"
    )


def check(settings: Any, prefix: str = "") -> None:
    """Raises ConfigError, naming the field, if a value isn't allowed."""
    for name, value, field in leaves(settings, prefix):
        limits = field.metadata
        whole = not isinstance(value, tuple) or isinstance(
            next(iter(limits["choices"]), None), tuple
        )
        for item in (value,) if whole else value:
            said = f"{name} is" if whole else f"{name} has"
            _check_item(f"{said} {item!r}", item, limits)


def _check_item(said: str, item: Any, limits: Mapping[str, Any]) -> None:
    low, high, above = limits["low"], limits["high"], limits["above"]
    if limits["choices"] and item not in limits["choices"]:
        listed = ", ".join(map(repr, limits["choices"]))
        raise ConfigError(f"{said}; choose from {listed}")
    if (low is not None and item < low) or (high is not None and item > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{said}; it must be {bounds}")
    if above is not None and item <= above:
        raise ConfigError(f"{said}; it must be above {above}")


# --- Flags ---------------------------------------------------------------------------


def define_flags(
    cls: type,
    prefix: str = "",
    *,
    defaults: bool = True,
    only: Collection[str] = (),
) -> Callable[[], dict[str, Any]]:
    """Defines a flag for each setting of a dataclass, named as its field.

    Args:
        cls: the dataclass; a group's flags are ``--GROUP.FIELD``.
        prefix: before the names of the flags.
        defaults: whether the flags show the defaults of the fields; otherwise they
            are for what shall differ from values that are there already.
        only: names of the settings that get a flag; empty is all.

    Returns:
        A function that gives, once the command line is parsed, nested mappings of what
        it says, for ``build``. It raises ConfigError for what should be a number.
    """
    from absl import flags

    kinds: dict[str, Any] = {}
    scalars: dict[Any, Any] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    for name, value, field in leaves(cls(), ""):
        if only and name not in only:
            continue
        kinds[name] = field.type
        shown = ([str(v) for v in value] if isinstance(value, tuple) else value,)
        define: Any = scalars.get(field.type, flags.DEFINE_list)
        more = []
        if field.metadata["repeated"]:
            define = flags.DEFINE_multi_string
        elif field.type is str and field.metadata["choices"]:
            define, more = flags.DEFINE_enum, [field.metadata["choices"]]
        meaning = field.metadata["meaning"]
        text = f"{meaning[0].upper()}{meaning[1:]}."
        if field.metadata["choices"] and not more:
            text += f" Of {', '.join(map(str, field.metadata['choices']))}."
        define(prefix + name, *(shown if defaults else (None,)), *more, text)
        # So that --help lists it, though this isn't the module that is started.
        flag = flags.FLAGS[prefix + name]
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)

    def given() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, kind in kinds.items():
            flag = flags.FLAGS[prefix + name]
            if not flag.using_default_value:
                *groups, last = name.split(".")
                place = found
                for group in groups:
                    place = place.setdefault(group, {})
                place[last] = _parsed(kind, flag.value, prefix + name)
        return found

    return given


def _parsed(kind: Any, value: Any, name: str) -> Any:
    """A flag's value; numbers of a list are still text."""
    if not isinstance(value, list):
        return value
    (item, _) = typing.get_args(kind)
    return tuple(value) if item is str else tuple(_numbers(item, value, name))


def _numbers(kind: Any, texts: Iterable[str], name: str) -> Iterator[Any]:
    for text in texts:
        above, slash, below = text.partition("/") if kind is float else (text, "", "")
        try:
            yield kind(above) / kind(below) if slash else kind(text)
        except (ValueError, ZeroDivisionError) as error:
            like = "such as 0.5 or 8/255" if kind is float else "without a point"
            raise ConfigError(
                f"{name} has {text!r}; it must be a number {like}"
            ) from error
