"""Attacks on all devices of a layout."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from apr_jax import parallel
from apr_jax.attacks import core
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import programs


class DeviceEngine(core.Engine):
    """Runs attacks on all devices of a layout, each on its share of a chunk."""

    def __init__(
        self,
        classifier: classifier_lib.Classifier,
        layout: parallel.Layout,
        chunk: int,
    ) -> None:
        """Attacks a classifier, ``chunk`` examples at a time over all devices."""
        self.accelerated = layout.accelerated
        self.sizes = core.sizes(chunk, layout.count, accelerated=self.accelerated)
        self._layout = layout
        self._variables = parallel.replicate(classifier.variables, layout)
        self._shapes = jax.eval_shape(lambda: classifier.variables)
        self._asked = classifier.asked
        self.watch: Callable[[int], None] = lambda amount: None
        # called before each advance, with its steps times the batch's examples, by
        # whichever thread
        self._slots = 0

    def lanes(self, images: np.ndarray, count: int) -> int:
        """One where there are several devices, which do what the others wait for."""
        return 1 if self._layout.count > 1 else super().lanes(images, count)

    def traced(self, images: np.ndarray) -> ClosedJaxpr:
        """Returns the operations by which images [N, H, W, C] are answered."""
        pixels = jax.ShapeDtypeStruct(images.shape, np.float32)
        return jax.make_jaxpr(self._asked)(self._shapes, pixels)

    def predict(self, images: np.ndarray, key: jax.Array) -> np.ndarray:
        """Returns logits [B, K] of a chunk."""
        del key
        run = _predict(self._asked, self._layout)
        logits: np.ndarray = run(self._variables, self._share(images))
        return logits

    def slopes(self, points: core.Points, loss: str) -> np.ndarray:
        """Returns the sizes [B] of a loss's gradient."""
        return self._look("gradient_size", points, loss)

    def directions(self, points: core.Points, loss: str) -> np.ndarray:
        """Returns a loss's gradients [B, H, W, C]."""
        return self._look("gradient", points, loss)

    def _look(self, what: str, points: core.Points, loss: str) -> np.ndarray:
        """Returns what a function of ``core`` makes of a chunk, on all devices."""
        run = _look(self._asked, what, loss, self._layout)
        found: np.ndarray = run(self._variables, self.put(points))
        return found

    def put(self, points: core.Points) -> core.Points:
        """Shares a chunk out to this process's devices."""
        self._slots = len(points.labels)
        rows = parallel.local_rows(self._slots, self._layout)
        keys = points.keys[rows].reshape(len(self._layout.local), -1)
        return core.Points(keys, *map(self._share, points[1:]))

    def programs(self, attack: core.Attack) -> tuple[Callable[..., Any], ...]:
        """Returns what ``Engine.programs`` does, compiled once for equal attacks."""
        variables = self._variables
        init, merge, done, result = _of_attack(attack, self._layout)
        step, loop = _steps(self._asked, attack, self._layout)

        def advance(state: Any, count: int) -> Any:
            self.watch(count * self._slots)
            if self.accelerated:
                return loop(variables, state, count)
            for _ in range(count):
                state = step(variables, state)
            return state

        return (
            init,
            lambda old, new, fresh: merge(old, new, self._share(fresh)),
            advance,
            lambda state: done(variables, state),
            lambda state: result(variables, state),
        )

    def _share(self, rows: np.ndarray) -> np.ndarray:
        mine = parallel.local_rows(len(rows), self._layout)
        shared: np.ndarray = parallel.split_batch(np.asarray(rows)[mine], self._layout)
        return shared


# --- Programs ------------------------------------------------------------------------


def _logits(asked: programs.Asked, variables: Any) -> jax.tree_util.Partial:
    return jax.tree_util.Partial(lambda v, pixels: asked(v, pixels)[0], variables)


@programs.once
def _predict(asked: programs.Asked, layout: parallel.Layout) -> Callable[..., Any]:
    def run(variables: Any, images: jax.Array) -> jax.Array:
        return core.logits_of(_logits(asked, variables), images, jax.random.key(0))

    return parallel.make_gather(run, layout)


@programs.once
def _look(
    asked: programs.Asked, what: str, loss: str, layout: parallel.Layout
) -> Callable[..., Any]:
    look = getattr(core, what)
    return parallel.make_gather(
        lambda v, points: look(_logits(asked, v), points, loss), layout
    )


@programs.once
def _of_attack(
    attack: core.Attack, layout: parallel.Layout
) -> tuple[Callable[..., Any], ...]:
    return (
        parallel.map_devices(attack.init, layout),
        parallel.map_devices(core.merge, layout, donate=(0,)),
        parallel.make_gather(lambda _, s: attack.done(s), layout),
        parallel.make_gather(lambda _, s: attack.result(s), layout),
    )


@programs.once
def _steps(
    asked: programs.Asked, attack: core.Attack, layout: parallel.Layout
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    step = parallel.map_devices(
        lambda v, s: attack.step(_logits(asked, v), s), layout, donate=(1,)
    )
    loop = parallel.map_devices(
        lambda v, s, count: core.advance(attack, _logits(asked, v), s, count),
        layout,
        in_axes=(0, 0, None),
        donate=(1,),
    )
    return step, loop
