"""Stopping a run without losing work."""

import signal
import types


class StopSignal:
    """Notes SIGTERM and SIGINT instead of dying of them.

    Within the context the first signal sets ``name``, for the loop to see after the
    call it is in; a second SIGINT raises KeyboardInterrupt as usual.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in self._SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


def exit_code(name: str) -> int:
    """Returns the conventional exit status of a program that a signal ended."""
    return 128 + signal.Signals[name].value
