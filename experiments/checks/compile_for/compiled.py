"""A compiled program, read: operations, collectives, look-ups, estimated time."""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

# Words that a look-up takes at once from which it is of a row: eight go together.
_ROW = 8
_STARTS = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|[^\s]+) ([\w\-]+)\(")
_CALLS = re.compile(
    r"(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_REDUCES = ("all-reduce", "all-reduce-start")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A line of the program."""

    kind: str
    shape: str
    line: str

    @property
    def words(self) -> int:
        """The numbers that its result holds."""
        return sum(
            math.prod(int(n) for n in sides.split(",") if n)
            for sides in _SHAPE.findall(self.shape)
        )

    @property
    def cycles(self) -> int:
        """The compiler's estimate of its time."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.line)
        return int(found.group(1)) if found else 0

    @property
    def times(self) -> int:
        """How often a loop goes round, as far as the compiler knows."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.line)
        return int(found.group(1)) if found else 1

    @property
    def calls(self) -> list[str]:
        """The computations that it has done."""
        branches = _BRANCHES.search(self.line)
        names = branches.group(1).split(",") if branches else []
        return [n.strip().lstrip("%") for n in names] + _CALLS.findall(self.line)

    def within(self, scope: str) -> bool:
        """Whether it is of a named scope of the source."""
        found = re.search(r'op_name="([^"]*)"', self.line)
        return found is not None and scope in re.split(r"[/()]", found.group(1))


class Program:
    """A compiled program's text."""

    def __init__(self, text: str) -> None:
        """Reads the text that ``jax.stages.Compiled.as_text`` gives."""
        self._parts: dict[str, list[Operation]] = {}
        self._entry, current = "", ""
        self.header = text.partition("\n")[0]
        for line in text.splitlines():
            starts = None if line.startswith(" ") else _STARTS.match(line)
            if starts:
                current = starts.group(2)
                self._parts[current] = []
                self._entry = current if starts.group(1) else self._entry
            elif current and (found := _LINE.match(line)):
                self._parts[current].append(Operation(found[2], found[1], line))

    def walk(self) -> Iterator[tuple[int, Operation]]:
        """Every operation with how often it is done; of branches, all."""
        yield from self._walk(self._entry, 1)

    def _walk(self, name: str, times: int) -> Iterator[tuple[int, Operation]]:
        for own in self._parts.get(name, []):
            yield times, own
            again = times * own.times if own.kind == "while" else times
            for called in own.calls:
                yield from self._walk(called, again)

    @property
    def all_reduces(self) -> int:
        """Collectives that a call of the program waits for."""
        return sum(times for times, own in self.walk() if own.kind in _REDUCES)

    @property
    def ffts(self) -> int:
        """Fast Fourier transforms."""
        return sum(own.kind == "fft" for _, own in self.walk())

    @property
    def doubles(self) -> bool:
        """Whether there is a number of 64 bits in floating point."""
        return any("f64[" in own.shape for _, own in self.walk())

    @property
    def donated(self) -> int:
        """Arguments whose memory results take."""
        return len(re.findall(r"\}: \(\d+, \{[^}]*\}, (?:may|must)-alias", self.header))

    def look_ups(self, kind: str) -> tuple[int, int]:
        """Single words that "gather" or "scatter" moves: the most at once, and all.

        Whole rows are not counted.
        """
        counts = [
            times * _singles(own, self._line_of(own))
            for times, own in self.walk()
            if own.kind == kind
        ]
        return max(counts, default=0), sum(counts)

    def _line_of(self, own: Operation) -> dict[str, str]:
        """Result types of the computation that an operation stands in, by name."""
        for operations in self._parts.values():
            if any(other is own for other in operations):
                pairs = [other.line.split(" = ")[0].split() for other in operations]
                return {
                    words[-1]: other.shape
                    for words, other in zip(pairs, operations, strict=True)
                }
        return {}

    def cycles(self, scope: str = "") -> int:
        """The sum of the compiler's estimates, of a named scope or of all.

        Of branches the dearest counts. There is no estimate of gather, scatter, sort.
        """
        return self._cycles(self._entry, scope)

    def _cycles(self, name: str, scope: str) -> int:
        total = 0
        for own in self._parts.get(name, []):
            if own.kind == "while":
                total += own.times * sum(self._cycles(c, scope) for c in own.calls)
            elif own.kind == "conditional":
                total += max((self._cycles(c, scope) for c in own.calls), default=0)
            elif own.kind in ("call", "async-start") and not own.cycles:
                total += sum(self._cycles(c, scope) for c in own.calls)
            elif not scope or own.within(scope):
                total += own.cycles
        return total


def _singles(own: Operation, shapes: dict[str, str]) -> int:
    """Words that a gather or scatter moves one by one."""
    if own.kind == "gather":
        sides = re.search(r"slice_sizes=\{([\d,]*)\}", own.line)
        row = math.prod(int(n) for n in sides.group(1).split(",") if n) if sides else 1
        return own.words // row if row < _ROW else 0
    # The rows of a scatter are the update's window; its updates are the last operand.
    operands = re.search(r"scatter\(([^)]*)\)", own.line)
    names = re.findall(r"%[\w.\-]+", operands.group(1)) if operands else []
    windows = re.search(r"update_window_dims=\{([\d,]*)\}", own.line)
    updates = shapes.get(names[-1], own.shape) if names else own.shape
    sides_of = _SHAPE.search(updates)
    sizes = [int(n) for n in sides_of.group(1).split(",") if n] if sides_of else []
    dims = [int(n) for n in windows.group(1).split(",") if n] if windows else []
    row = math.prod(sizes[d] for d in dims)
    return math.prod(sizes) // row if row < _ROW else 0


def memory(compiled: Any) -> int:
    """Bytes that a chip needs at once for a program and its arguments."""
    found = compiled.memory_analysis()
    return int(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
