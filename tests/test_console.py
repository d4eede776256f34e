"""Words for the user: bars that fit their terminal, and lines where there is none."""

import io
import time

import pytest
import rich.console

from apr_jax import config, console, job
from apr_jax.errors import ConfigError
from apr_jax.runs import curves
from apr_jax.train import loop, plan
from tests import toy

SAID = "loss 0.123 acc 100.0 % 12,345 img/s"


def bar_on(monkeypatch, **terminal):
    """A bar on a console of the test's, and what it writes."""
    written = io.StringIO()
    made = rich.console.Console(file=written, **terminal)
    monkeypatch.setattr(console, "_console", lambda: made)
    return console.make_bar("{task.fields[said]}"), written


def test_a_bar_fits_into_80_columns(monkeypatch):
    bar, written = bar_on(monkeypatch, width=80, force_terminal=True)
    with bar:
        task = bar.add_task("epoch 123.4/200", total=100, said="")
        bar.update(task, completed=7, said=SAID)
        bar.refresh()
    text = written.getvalue()
    assert SAID in text
    assert "epoch 123.4/200" in text
    assert "left" in text
    assert "…" not in text


@pytest.mark.parametrize("terminal", ["file", "dumb"])
def test_without_a_terminal_lines_say_how_far_it_is(monkeypatch, terminal):
    monkeypatch.setattr(console, "_FIRST_LINE", 0.05)
    monkeypatch.setattr(console, "_NEXT_LINES", 0.05)
    dumb = terminal == "dumb"
    bar, written = bar_on(
        monkeypatch,
        width=110,
        force_terminal=dumb,
        _environ={"TERM": "dumb"} if dumb else {},
    )
    with bar:
        task = bar.add_task("epoch 1.0/4", total=4, said="")
        bar.update(task, completed=1, said=SAID)
        deadline = time.monotonic() + 10
        while written.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = written.getvalue().splitlines()
    assert lines[0].startswith(f"epoch 1.0/4, 25 %, {SAID}")
    assert len(lines) >= 2
    time.sleep(0.15)
    assert written.getvalue().splitlines() == lines  # and no more after its end


def test_a_disabled_bar_says_nothing(monkeypatch):
    monkeypatch.setattr(console, "_FIRST_LINE", 0.01)
    written = io.StringIO()
    made = rich.console.Console(file=written)
    monkeypatch.setattr(console, "_console", lambda: made)
    with console.make_bar("{task.fields[said]}", disable=True) as bar:
        bar.add_task("here", total=4, said="")
        time.sleep(0.1)
    assert written.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (720, "12 min"), (9000, "2.5 h")]
)
def test_durations(seconds, words):
    assert console.duration(seconds) == words


@pytest.mark.usefixtures("_tiny_model")
def test_a_dry_run_needs_no_folder_that_all_processes_see(
    folder, tmp_path, monkeypatch
):
    def refused(root):
        raise ConfigError(f"workdir is {str(root)!r}, which must be one folder")

    monkeypatch.setattr(job.parallel, "check_shared", refused)
    job.foretell(toy.config(folder), tmp_path / "run")
    with pytest.raises(ConfigError, match="must be one folder"):
        job.run(toy.config(folder), tmp_path / "run")


@pytest.mark.usefixtures("_tiny_model")
def test_a_dry_run_says_what_a_run_takes(folder, tmp_path, capsys):
    settings = toy.config(folder, augment__cutout_size=3, augment__pair_prob=0.25)
    job.foretell(settings, tmp_path / "run")
    said = capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    total = round(settings.optim.epochs * 96 / settings.train.batch_size)
    for words in (f"steps       {total}", "time ", "images/s", "memory ", "disk "):
        assert words in said, said
    # Of the values only those that somebody chose.
    usual = config.flatten(config.default())
    chosen = {k: v for k, v in config.flatten(settings).items() if v != usual[k]}
    shown = [
        line.split(" = ")[0].strip() for line in said.splitlines() if " = " in line
    ]
    assert set(shown) >= set(chosen) - {"data.data_dir", "data.cache_dir"}
    assert set(shown) <= set(chosen)
    assert "augment.cutout_size = 3, of no use to apr_p\n" in said
    assert "augment.pair_prob = 0.25\n" in said


@pytest.mark.usefixtures("_tiny_model")
def test_a_run_shorter_than_log_every_has_a_curve(folder, tmp_path):
    settings = toy.config(folder, train__log_every=1000)
    planned = plan.plan(settings, tmp_path / "run")
    loop.train(planned, quiet=True)
    steps = [row.step for row in curves.read_curve(tmp_path / "run")]
    assert steps == list(range(2, planned.total_steps + 1, 2))
