"""Settings that are written once: a field has its default, range, choices and meaning.

    @dataclasses.dataclass(frozen=True)
    class Optim:
        epochs: float = setting(200.0, "length of the run", low=0)
        momentum: float = share(0.9, "decay of the sum of gradients")
        schedule: str = choice("of the learning rate", "multistep", "cosine")

From such a dataclass, which may hold others, come the values that mappings give
(``build``), their checks (``check``), and flags of a command line (``define_flags``).
"""

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from apr_jax.errors import ConfigError
from apr_jax.gates import places

T = TypeVar("T")
_INTEGERS = 2**31  # what programs on all devices can count to


@dataclasses.dataclass(frozen=True)
class About:
    """All that is said of a setting.

    Attributes:
        default: its value where nothing else is said.
        meaning: for readers and ``--help``.
        low, high: the range allowed, ends included; of a tuple, of each item.
        above: what the value, or each item of a tuple, must be above.
        choices: the values allowed; of a tuple, of each item or of the whole.
        incidental: whether it says where and how fast, not what is computed.
        repeated: whether its flag is given once for each item.
        place: whether it names files or folders.
        remote: whether these may be on an object store, as ``gs://bucket/sets``.
    """

    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[Any, ...] = ()
    incidental: bool = False
    repeated: bool = False
    place: bool = False
    remote: bool = False


def setting(default: Any, meaning: str, **more: Any) -> Any:
    """A field of a frozen dataclass of settings; the arguments are those of About."""
    about = About(default, meaning, **more)
    return dataclasses.field(default=default, metadata={"about": about})


def choice(meaning: str, *choices: Any) -> Any:
    """A setting that has one of some values, by default the first."""
    return setting(choices[0], meaning, choices=choices)


# A setting between 0 and 1, one that names files or folders, and one that doesn't
# change what is computed.
share = functools.partial(setting, low=0, high=1)
place = functools.partial(setting, place=True)
incidental = functools.partial(setting, incidental=True)


class Leaf(NamedTuple):
    """A setting of some settings: its dotted name, its value, and what it is."""

    name: str
    value: Any
    kind: Any  # a scalar type, or tuple[SCALAR, ...]
    about: About


def leaves(settings: Any, prefix: str = "") -> Iterator[Leaf]:
    """Yields each setting, also of groups, in the order of declaration."""
    for field in dataclasses.fields(settings):
        name, value = prefix + field.name, getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{name}.")
        else:
            yield Leaf(name, value, field.type, field.metadata["about"])


def mapped(settings: T, change: Callable[[Leaf], Any], prefix: str = "") -> T:
    """The same settings, also of groups, with other values for some."""
    group: Any = settings
    own = {leaf.name: change(leaf) for leaf in leaves(group, prefix)}
    changed = {
        field.name: mapped(value, change, f"{prefix}{field.name}.")
        if dataclasses.is_dataclass(value := getattr(group, field.name))
        else own[prefix + field.name]
        for field in dataclasses.fields(group)
    }
    result: T = dataclasses.replace(group, **changed)
    return result


def choices(cls: Callable[[], Any], name: str) -> tuple[Any, ...]:
    """The values that a field of a dataclass of settings may have."""
    return next(leaf.about.choices for leaf in leaves(cls()) if leaf.name == name)


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
    where = prefix.rstrip(".") or "the configuration"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}; it must be a group of fields")
    settings: Any = base
    kinds = {field.name: field.type for field in dataclasses.fields(settings)}
    built = {}
    for name, value in values.items():
        full = prefix + name
        if name not in kinds:
            raise ConfigError(
                f"unknown field {full} = {shown(value)}; {where} has {', '.join(kinds)}"
            )
        if dataclasses.is_dataclass(group := getattr(settings, name)):
            built[name] = build(group, value, f"{full}.")
        else:
            built[name] = _convert(kinds[name], value, full)
    settings = dataclasses.replace(settings, **built)
    check(settings, prefix)
    return settings


def shown(value: Any) -> str:
    """A value as messages have it: as it is written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}…, {len(text):,} characters"


def _convert(hint: Any, value: Any, field: str) -> Any:
    """Returns ``value`` as the hinted type, or raises ConfigError."""
    if isinstance(hint, types.GenericAlias):  # tuple[X, ...]
        (item, _) = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{field} is {shown(value)}; it must be a tuple of {item.__name__}"
            )
        return tuple(_convert(item, v, field) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        # What no float can hold is said to be too large, as infinity is.
        return float(value) if abs(value) < sys.float_info.max else math.inf
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise ConfigError(
        f"{field} is {shown(value)} of type {type(value).__name__}; "
        f"it must be of type {hint.__name__}"
    )


def check(settings: Any, prefix: str = "") -> None:
    """Raises ConfigError, naming the field, if a value isn't allowed."""
    for name, value, _, about in leaves(settings, prefix):
        whole = not isinstance(value, tuple) or about.default in about.choices
        for item in (value,) if whole else value:
            said = f"{name} {'is' if whole else 'has'} {shown(item)}"
            if about.choices and item not in about.choices:
                listed = ", ".join(map(repr, about.choices))
                several = not whole and "," in str(item)
                how = f'; several are written "{about.choices[:2]}"' if several else ""
                raise ConfigError(f"{said}; choose from {listed}{how}")
            if about.place and not (about.remote and "://" in item):
                places.check(item, name)
            if isinstance(item, str) and not item.isprintable():
                raise ConfigError(f"{said}; it must have no control characters")
            if isinstance(item, float) and not math.isfinite(item):
                raise ConfigError(f"{said}; it must be finite")
            if isinstance(item, int) and abs(item) >= _INTEGERS:
                raise ConfigError(f"{said}; whole numbers must be below {_INTEGERS:,}")
            low, high = about.low, about.high
            if (low is not None and item < low) or (high is not None and item > high):
                bounds = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ConfigError(f"{said}; it must be {bounds}")
            if about.above is not None and item <= about.above:
                raise ConfigError(f"{said}; it must be above {about.above}")


# --- Flags ---------------------------------------------------------------------------


def list_in_help(*names: str) -> None:
    """Has ``--help`` list flags, though another module than the program's made them."""
    from absl import flags

    for name in names:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def define_flags(
    cls: Callable[[], Any],
    *,
    defaults: bool = True,
    only: Collection[str] = (),
) -> Callable[[], dict[str, Any]]:
    """Defines a flag for each setting of a dataclass, named as its field.

    Args:
        cls: the dataclass; a group's flags are ``--GROUP.FIELD``.
        defaults: whether the flags show the defaults of the fields; otherwise they
            are for what shall differ from values that are there already.
        only: names of the settings that get a flag; empty is all.

    Returns:
        A function that gives, once the command line is parsed, nested mappings of what
        it says, for ``build``. It raises ConfigError for what should be a number.
    """
    from absl import flags

    found = [leaf for leaf in leaves(cls()) if not only or leaf.name in only]
    for name, value, kind, about in found:
        define: Any = _define(kind, about)
        text = f"{about.meaning[0].upper()}{about.meaning[1:]}."
        if isinstance(value, tuple):
            value = [str(item) for item in value]
            text += (
                f" Of {', '.join(map(str, about.choices))}." if about.choices else ""
            )
        define(name, value if defaults else None, help=text)
        list_in_help(name)

    def given() -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, _, kind, _ in found:
            flag = flags.FLAGS[name]
            if not flag.using_default_value:
                *groups, last = name.split(".")
                place = values
                for group in groups:
                    place = place.setdefault(group, {})
                place[last] = _parsed(kind, flag.value, name)
        return values

    return given


def _define(kind: Any, about: About) -> Callable[..., Any]:
    """The function of absl that defines a flag for a setting."""
    from absl import flags

    if about.repeated:
        return flags.DEFINE_multi_string
    if kind is str and about.choices:
        return functools.partial(flags.DEFINE_enum, enum_values=about.choices)
    scalars: dict[Any, Callable[..., Any]] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    return scalars.get(kind, flags.DEFINE_list)


def _parsed(kind: Any, value: Any, name: str) -> Any:
    """A flag's value; numbers of a list are still text."""
    if not isinstance(value, list):
        return value
    (item, _) = typing.get_args(kind)
    if item is str:
        return tuple(value)
    numbers = []
    for text in value:
        above, slash, below = text.partition("/") if item is float else (text, "", "")
        try:
            numbers.append(item(above) / item(below) if slash else item(text))
        except (ValueError, ZeroDivisionError) as error:
            like = "such as 0.5 or 8/255" if item is float else "without a point"
            raise ConfigError(
                f"{name} has {text!r}; it must be a number {like}"
            ) from error
    return tuple(numbers)
