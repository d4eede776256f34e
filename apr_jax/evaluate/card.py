"""The robustness card: every measurement that the data at hand allow, on one page.

    python -m apr_jax.evaluate.card RUN [RUN ...]
    python -m apr_jax.evaluate.card RUN --parts clean,fourier --fourier.examples 500
    python -m apr_jax.evaluate.card --model FILE.py:create --data cifar10

measures each run in turn, by all parts if none are named, and draws one page with the
runs side by side; beside it lies the same as JSON, ``card.json``. Flags stand instead
of the runs' own ``eval``. Numbers that a run has already are not measured again, so a
stopped card goes on. A part that can't be measured, as its data aren't there, is said
and left out.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from apr_jax import config as config_lib
from apr_jax import console, data, parallel, process, tuning
from apr_jax.errors import ArgumentError, DataError, UserError, words
from apr_jax.evaluate import (
    adversarial,
    at_hand,
    clean,
    command,
    corruption,
    cost,
    fourier,
    ood,
    shift,
)
from apr_jax.evaluate import bring as bring_lib
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.gates import places as places_lib
from apr_jax.gates import stores
from apr_jax.runs import files, workdir
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record
from apr_jax.settings import build

_LOG = logging.getLogger(__name__)
_PARTS: dict[str, types.ModuleType] = {
    "clean": clean,
    "corruption": corruption,
    "shift": shift,
    "ood": ood,
    "adversarial": adversarial,
    "fourier": fourier,
}


def measure(
    classifier: classifier_lib.Classifier,
    settings: None,
    context: Context,
) -> Iterator[Record]:
    """Measures the parts that the classifier's configuration lists.

    Args:
        classifier: the classifier; ``eval`` of its configuration says how.
        settings: not used.
        context: its surroundings; "clean", which is short, is measured anew, and what
            it saw the corruptions take from it.

    Yields:
        The records of the parts. A part that can't be measured is said and left out,
        with a traceback in the log where it isn't for a mistake of the user's.
    """
    del settings
    parts = classifier.config.eval.parts
    if set(parts) - {"clean"}:
        context = dataclasses.replace(context, speed={})
    for number, part in enumerate(parts):
        with _left_out_if_need_be(part):
            settings = at_hand.settings_of(part, classifier.config)
            if number == _first_long(parts):
                _say_plan(classifier, context, parts[number:])
            for own in _separately(settings):
                with _left_out_if_need_be(part):
                    yield from _PARTS[part].measure(classifier, own, context)


@contextlib.contextmanager
def _left_out_if_need_be(part: str) -> Iterator[None]:
    """Says why a part, or some of it, can't be measured."""
    try:
        yield
    except UserError as why:
        console.say(f"{part} is left out: {why}")
    except Exception as error:  # never takes the later parts with it
        if jax.process_count() > 1:  # which all processes measure together
            raise
        _LOG.warning("the part %s failed", part, exc_info=True)
        console.say(f"{part} is left out: {type(error).__name__}: {words(error)}")


def _separately(settings: Any) -> list[Any]:
    """The settings of what a part measures, each of which may fail by itself."""
    if not isinstance(settings, config_lib.Shift):
        return [settings]
    none: dict[str, Any] = {"shift": (), "cue_conflict": "", "perturbations": ""}
    given = {name: value for name in none if (value := getattr(settings, name))}
    return [dataclasses.replace(settings, **none | {k: v}) for k, v in given.items()]


def _first_long(parts: Sequence[str]) -> int:
    """The place of the part before which the plan is said: after the clean images."""
    after = parts.index("clean") + 1 if "clean" in parts else 0
    return after if after < len(parts) else 0


def _say_plan(
    classifier: classifier_lib.Classifier, context: Context, parts: Sequence[str]
) -> None:
    """Says what the parts ask of the network, and what they may take."""
    config, split = classifier.config, classifier.config.data.test_split
    if split in context.seen:
        size = len(context.seen[split][1].labels)
    elif context.resident is not None:
        size = len(context.resident.splits[split].labels)
    else:
        return
    settings = {part: getattr(config.eval, part, None) for part in parts}
    if "ood" in settings:
        try:
            settings["ood"] = at_hand.with_out_sets(config)
        except DataError:  # it is said when its turn comes
            del settings["ood"]
    speed = (context.speed or {}).get("images/s")
    cost.say(cost.plan(classifier, settings, size), speed)


def check(config: config_lib.Config) -> None:
    """Raises ConfigError if a part of the card can't be measured as ``eval`` says.

    Parts that aren't listed count, too: somebody wrote their settings. That the data
    are there is seen when they are read.
    """
    for part in _PARTS:
        if part != "clean":
            _PARTS[part].check(getattr(config.eval, part), config.data)


# --- Runs and networks from elsewhere ------------------------------------------------


def run(
    roots: Sequence[stores.Place],
    changes: Mapping[str, Any],
    *,
    target: stores.Place | None = None,
    places: Mapping[str, Any] | None = None,
    devices: int = 0,
    quiet: bool = False,
    foreign: Mapping[str, Any] | None = None,
    out: stores.Place | None = None,
    shown: Sequence[stores.Place] = (),
) -> None:
    """Measures runs, and a network from elsewhere, and draws their page.

    Args:
        roots: work directories; records go to each one's own ``results.jsonl``, of a
            network of the zoo to ``runs/zoo/NAME``, and what the package has of it
            stands beside. One that is named twice is measured once.
        changes: nested mappings of ``config.Eval``, instead of the runs' own values.
        target: file of the page; the first run's report if None.
        places: where the runs' data are now, if they moved; as ``from_run``'s.
        devices: how many to use; 0 as in training.
        quiet: no progress bar.
        foreign: the network from elsewhere, the arguments of ``bring.bring``.
        out: where its records go, ``runs/MODEL_DATA`` if None; without such a network
            where those of the only run go, which is then only read.
        shown: those of ``roots`` that aren't measured: their records stand as they are.

    Raises:
        ConfigError: a directory is no run, a value isn't allowed, or the page can't be
            written.
    """
    opened = []
    roots = list({root.resolve(): root for root in reversed(roots)}.values())[::-1]
    elsewhere = out if foreign is None else None
    kept = lambda root: elsewhere or workdir.place_of_records(root)
    for root in roots:
        if root in shown:
            continue
        place, config = workdir.open_run(root)
        config = classifier_lib.at_places(config, places or {})
        own = build(config.eval, changes, "eval.")
        opened.append((place, dataclasses.replace(config, eval=own)))
        check(opened[-1][1])
    recorded = [root for root in roots if root in shown or workdir.is_reduced(root)]
    if not opened and foreign is None:
        _show(recorded, target, kept(recorded[0]))
        return
    tuning.use_onednn()
    parallel.declare_cpu_devices(devices)
    cache = {"cache_dir": (places or {}).get("cache_dir", "")}
    own_data = opened[0][1].data if opened else build(config_lib.Data(), cache)
    process.use_compile_cache(own_data)
    layout = parallel.make_layout(devices)
    if target is not None and parallel.is_primary():
        files.check_target(target, "--page")
    # All of them first: one without checkpoint is better found now.
    jobs: list[_Job] = []
    for place, config in opened:
        parallel.check_batch("eval.batch_size", config.eval.batch_size, layout)
        command.check_images(place.root, config)
        where = workdir.RunDir(kept(place.root))
        if parallel.is_primary():
            workdir.check_writable(where.root)
        network = classifier_lib.from_run(place.root)
        if where.root.resolve() != place.root.resolve():
            workdir.prepare(where.root, config, write=False)
            if parallel.is_primary():
                workdir.claim(where, config, network.class_names)
        jobs.append((where, dataclasses.replace(network, config=config), None))
    if foreign is not None:
        jobs.append(
            _claimed(bring_lib.bring(**foreign, where=places, root=out), changes)
        )
    on_page: list[stores.Place] = []
    for root in roots:
        on_page += [] if root in shown else [kept(root)]
        on_page += [root] if root in recorded else []
    place_of_page = kept(roots[0]) if roots else None
    _measure_all(jobs, layout, target, quiet, on_page, place_of_page)


# A work directory, the network whose records it takes, its images where they are known.
_Job = tuple[workdir.RunDir, classifier_lib.Classifier, data.DataSet | None]


def _claimed(brought: bring_lib.Brought, changes: Mapping[str, Any]) -> _Job:
    """The job of a network from elsewhere, in a directory that is its own from now."""
    network, resident, root = brought
    own = build(network.config.eval, changes, "eval.")
    config = dataclasses.replace(network.config, eval=own)
    check(config)
    place = workdir.prepare(root, config, write=parallel.is_primary())
    if parallel.is_primary():
        brought.claim(place, config)
    return place, dataclasses.replace(network, config=config), resident


def _measure_all(
    jobs: Sequence[_Job],
    layout: parallel.Layout,
    target: stores.Place | None,
    quiet: bool,
    named: Sequence[stores.Place] = (),
    own: stores.Place | None = None,
) -> None:
    """Measures jobs, and draws a page of them, of ``named`` in the order given first.

    ``own`` is where page and numbers go without a target, the first job's if None.
    """
    try:
        for place, network, resident in jobs:
            console.say(f"{place.root}, step {network.step:,}")
            context = Context(layout, resident, quiet=quiet)
            command.keep(place, functools.partial(measure, network, None), context)
    finally:  # all that was measured is shown, whatever happens
        if parallel.is_primary():
            roots = [place.root for place, *_ in jobs]
            on_page = list(dict.fromkeys([*named, *roots]))
            _show(on_page, target, own or roots[0])


def _show(
    roots: Sequence[stores.Place], target: stores.Place | None, own: stores.Place
) -> None:
    """Draws the page of what was measured, and its numbers as JSON beside it.

    They are ``target`` and its namesake, or in ``own``, the place of the first run.
    """
    # Matplotlib takes a while to load.
    from apr_jax.report import export, page

    first = workdir.RunDir(own)
    beside = files.with_suffix(target, ".json") if target else first.card
    page.write(target or first.report, roots)
    export.write_card(beside, roots)


def robustness_card(
    model: Any,
    *,
    data: bring_lib.Source,
    out: str | os.PathLike[str],
    parts: Sequence[str] = config_lib.PARTS,
    classes: int | Sequence[str] | None = None,
    image_size: int = 0,
    weights: str | None = None,
    trust_remote_code: bool = False,
    devices: int = 0,
    quiet: bool = False,
    **settings: Any,
) -> list[Record]:
    """Measures any network by everything that the data allow, and draws its page.

    A second call goes on where the first one stopped.

    Args:
        model: an ``apr_jax.Classifier``; a function from images float32 [B, H, W, C],
            pixels in [0, 1], to logits [B, K]; "FILE.py:create", whose function takes
            nothing and returns one of them; "timm:NAME", "torchvision:NAME" or
            "hf:REPO", a network of that library with its own preprocessing; or
            "zoo:NAME", one of the package's.
        data: "cifar10" or another set of TFDS, "bundled", "folder:PATH",
            "arrays:FILE.npz", "parquet:PATH", or (images, labels).
        out: directory of records and page, ``results.jsonl``, ``report.html`` and
            ``card.json``.
        parts: of "clean", "corruption", "shift", "ood", "adversarial", "fourier".
        classes: of a function: names in the order of its logits, or how many; the
            data's if None. Of a ``Classifier`` that only knows how many, their names.
        image_size: of a function; the data's own if 0.
        weights: a file of them for a network by name; None: its library's, which it
            downloads. No code from it is run.
        trust_remote_code: whether code may be run that "hf:REPO" brings.
        devices: how many to use; 0: all accelerators, or one device of a CPU.
        quiet: no progress bar.
        settings: fields of ``config.Eval``, those of a part as a mapping:
            ``adversarial={"examples": 100}``.

    Returns:
        The newest record of each number.

    Raises:
        UserError: network, data or settings don't fit; the message says why. What a
            single part lacks is said, and the part left out.
    """
    if isinstance(parts, str):
        raise ArgumentError(
            f"parts is {parts!r}; it must be a sequence of names, such as ({parts!r},)"
        )
    build(config_lib.Eval(), {"parts": tuple(parts), **settings}, "eval.")
    layout = parallel.make_layout(devices)
    brought = bring_lib.bring(
        model,
        data,
        classes=classes,
        image_size=image_size,
        root=places_lib.anywhere(os.fspath(out), "out"),
        weights=weights,
        trust_remote_code=trust_remote_code,
    )
    job = _claimed(brought, {"parts": tuple(parts), **settings})
    _measure_all([job], layout, None, quiet)
    return records_lib.latest(records_lib.read(job[0].results))


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("card")
