"""The metrics of a run while it works: a progress bar, a curve, a stop on NaN."""

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from apr_jax import parallel
from apr_jax.console import make_bar, say
from apr_jax.errors import Diverged
from apr_jax.runs import curves, wandb_run
from apr_jax.train.plan import Plan

_POINTS = 10  # of the curve of a run that is too short for two
_RECENT = 20  # calls that the speed on the bar is taken over


class Meter:
    """Follows the metrics of a run, one call behind the devices.

    Reading a result waits for it; reading each only when the next call is under way
    keeps the devices busy. ``flush`` reads what is left.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        first: int,
        started: float,
        quiet: bool,
        lane: int | None,
    ) -> None:
        """Opens the curve of a run.

        Args:
            plan: that of the run.
            first: step that training goes on from.
            started: in monotonic time.
            quiet: no progress bar.
            lane: the run's place in metrics of several; None for a run alone.
        """
        settings, primary = plan.config.train, parallel.is_primary()
        self._settings, self._lane, self._rate = settings, lane, plan.rate
        self._epoch_steps, self._epochs = plan.epoch_steps, plan.config.optim.epochs
        self._total, self._every = plan.total_steps, settings.log_every
        if self._total < 2 * self._every:
            self._every = max(1, self._total // _POINTS)
        self._curve = None
        if primary:
            followers = wandb_run.opened(plan.run, plan.config)
            for follower in followers:
                say(f"  W&B         {follower.where}")
            self._curve = curves.curve_writer(
                plan.run.root,
                resume_step=first,
                tensorboard=settings.tensorboard,
                followers=followers,
            )
        self._started = started
        self._pending: collections.deque[tuple[int, Any]] = collections.deque()
        self._window: list[tuple[float, float]] = []
        self._window_start = time.monotonic()
        # (time, step) of the newest calls, for the speed that the bar shows.
        self._recent: collections.deque[tuple[float, int]] = collections.deque(
            maxlen=_RECENT
        )
        self.seconds_to_first_step: float | None = None
        self._bar = make_bar("{task.fields[said]}", disable=quiet or not primary)
        self._task = self._bar.add_task(
            "compiling", total=plan.total_steps, completed=first, said=""
        )

    def __enter__(self) -> "Meter":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._curve is not None:
            self._curve.close()

    def add(self, step: int, metrics: Any) -> None:
        """Takes the metrics of a call that began at ``step``; reads the one before."""
        self._pending.append((step, metrics))
        while len(self._pending) > 1:
            self._read(*self._pending.popleft())

    def flush(self) -> None:
        """Waits for every call so far and reads its metrics."""
        while self._pending:
            self._read(*self._pending.popleft())

    def check(self, step: int, metrics: Any) -> None:
        """Looks at the loss of a call whose state is thrown away.

        Raises:
            Diverged: it is not finite, and so the state of ``step`` is no good.
        """
        if not np.isfinite(loss := self._values(metrics)["loss"][0]):
            raise self._diverged(loss, step)

    def note(self, done: int, scalars: Mapping[str, float]) -> None:
        """Passes on what was measured of the state of step ``done``, by name."""
        if self._curve is not None and scalars:
            self._curve.note(scalars, step=done, seconds=time.time())

    def _diverged(self, loss: float, step: int) -> Diverged:
        if self._window:
            self._point(step)  # the curve goes up to here
        return Diverged(f"the loss is {loss} at step {step}")

    def _values(self, metrics: Any) -> dict[str, Any]:
        values: dict[str, Any] = parallel.first_copy(metrics)
        if self._lane is not None:
            values = {name: each[self._lane] for name, each in values.items()}
        return values

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Flushes, and leaves time that is not spent on steps out of the speed."""
        self.flush()
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self._started += seconds
        self._window_start += seconds
        moved = [(then + seconds, step) for then, step in self._recent]
        self._recent = collections.deque(moved, maxlen=_RECENT)

    def _read(self, step: int, metrics: Any) -> None:
        """Reads the metrics of one call.

        Raises:
            Diverged: a loss is not finite; the message says at which step.
        """
        values = self._values(metrics)
        if self.seconds_to_first_step is None:
            self.seconds_to_first_step = time.monotonic() - self._started
            self._window_start = time.monotonic()
        pairs = zip(values["loss"], values["accuracy"], strict=True)
        for offset, (loss, accuracy) in enumerate(pairs):
            if not np.isfinite(loss):
                raise self._diverged(loss, step + offset)
            self._window.append((float(loss), float(accuracy)))
            done = step + offset + 1
            if done % self._every == 0 or done == self._total:
                self._point(done)
        self._show(step + len(values["loss"]))

    def _point(self, done: int) -> None:
        """Adds a point to the curve: means since the point before."""
        loss, accuracy = np.mean(self._window, axis=0)
        elapsed = max(time.monotonic() - self._window_start, 1e-9)
        if self._curve is not None:
            self._curve.write(
                curves.CurveRow(
                    step=done,
                    epoch=done / self._epoch_steps,
                    loss=float(loss),
                    accuracy=float(accuracy),
                    learning_rate=float(self._rate(done - 1)),
                    images_per_second=len(self._window)
                    * self._settings.batch_size
                    / elapsed,
                    time=time.time(),
                )
            )
        self._window = []
        self._window_start = time.monotonic()

    def _show(self, done: int) -> None:
        epoch = f"epoch {done / self._epoch_steps:.1f}/{self._epochs:g}"
        self._bar.update(self._task, completed=done, description=epoch)
        now = time.monotonic()
        self._recent.append((now, done))
        then, before = self._recent[0]
        if not self._window or done == before:
            return
        loss, accuracy = np.mean(self._window, axis=0)
        speed = (done - before) * self._settings.batch_size / (now - then)
        said = f"loss {loss:.3f} acc {100 * accuracy:.1f} % {speed:,.0f} img/s"
        self._bar.update(self._task, said=said)
