"""Training curves: single-valued after a resume, and readable by TensorBoard."""

import math
import subprocess
import sys
import textwrap

import pytest

from apr_jax.runs import curves


def row(step, **changes):
    fields = {
        "step": step,
        "epoch": step / 10,
        "loss": 2.0 / step,
        "accuracy": 1 - 1 / step,
        "learning_rate": 0.1,
        "images_per_second": 1e4,
        "time": 1.7e9 + step,
    }
    return curves.CurveRow(**(fields | changes))


def test_rows_survive_the_file(tmp_path):
    rows = [row(10, extra={"test_accuracy": 0.5}), row(20)]
    with curves.curve_writer(tmp_path, resume_step=0, tensorboard=False) as writer:
        for r in rows:
            writer.write(r)
    assert curves.read_curve(tmp_path) == rows
    assert curves.read_curve(tmp_path / "metrics.jsonl") == rows


def test_nan_is_kept_as_null(tmp_path):
    with curves.curve_writer(tmp_path, resume_step=0, tensorboard=False) as writer:
        writer.write(row(1, loss=math.nan, extra={"grad_norm": math.inf}))
    (read,) = curves.read_curve(tmp_path)
    assert math.isnan(read.loss)
    assert math.isnan(read.extra["grad_norm"])
    assert "null" in (tmp_path / "metrics.jsonl").read_text()


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    with curves.curve_writer(tmp_path, resume_step=0, tensorboard=False) as writer:
        for step in (10, 20, 30, 40):
            writer.write(row(step, loss=1.0))
    with curves.curve_writer(tmp_path, resume_step=20, tensorboard=False) as writer:
        writer.write(row(30, loss=2.0))
    read = curves.read_curve(tmp_path)
    assert [(r.step, r.loss) for r in read] == [(10, 1.0), (20, 1.0), (30, 2.0)]


def test_resuming_clears_a_row_that_was_cut_off(tmp_path):
    with curves.curve_writer(tmp_path, resume_step=0, tensorboard=False) as writer:
        writer.write(row(10))
        writer.write(row(20))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="left out line 2"):
        writer = curves.curve_writer(tmp_path, resume_step=20, tensorboard=False)
    writer.write(row(30))
    assert [r.step for r in curves.read_curve(tmp_path)] == [10, 30]


def test_a_line_that_is_no_row_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "colour": 2}\n')
    with pytest.raises(ValueError, match=r"line 1, is not a row of a curve.*colour"):
        curves.read_curve(path)


def test_without_tensorboard_there_is_no_event_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with curves.curve_writer(tmp_path, resume_step=0) as writer:
        writer.write(row(1))
    assert not (tmp_path / "tensorboard").exists()
    assert len(curves.read_curve(tmp_path)) == 1


def test_tensorboard_reads_the_scalars_back(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    # A process of its own: TensorBoard's reader loads a stand-in for TensorFlow.
    code = """
        import sys, types
        from apr_jax.runs import curves
        assert "tensorboard" not in sys.modules
        for resume in (0, 2):
            with curves.curve_writer(sys.argv[1], resume_step=resume) as writer:
                for step in range(resume + 1, resume + 4):
                    writer.write(curves.CurveRow(
                        step=step, epoch=step / 2, loss=resume + step / 10,
                        accuracy=float("nan"), learning_rate=0.1,
                        images_per_second=9.0, time=1e9 + step,
                        extra={"test_accuracy": 0.25}))
                writer.note({"b": 0.5, "c": float("inf")}, step=step, seconds=2e9)
        assert not any(m.split(".")[0] == "tensorflow" for m in sys.modules)
        sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
        from tensorboard.backend.event_processing import event_accumulator
        events = event_accumulator.EventAccumulator(sys.argv[1] + "/tensorboard")
        events.Reload()
        print(sorted(events.Tags()["scalars"]))
        loss = events.Scalars("loss")
        print([(e.step, round(e.value, 3), e.wall_time) for e in loss])
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    tags, loss = run.stdout.strip().splitlines()
    assert (
        tags == "['b', 'images_per_second', 'learning_rate', 'loss', 'test_accuracy']"
    )
    # Step 3 of the first run is forgotten: it came after the checkpoint.
    assert loss == (
        "[(1, 0.1, 1000000001.0), (2, 0.2, 1000000002.0), (3, 2.3, 1000000003.0), "
        "(4, 2.4, 1000000004.0), (5, 2.5, 1000000005.0)]"
    )
