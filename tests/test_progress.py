"""What is said of a run while it goes on: on a terminal, in a file, and from where an earlier process stopped."""

import io
import re
import sys

import pytest

from eqprop.run import progress
from eqprop.run.progress import Progress

METRICS = {"accuracy": 0.5, "loss": 1.25, "cosine_hidden": 0.9, "free_steps": 12.0, "nudged_steps": 8.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_plain_line_an_epoch(clock, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with Progress(4, 10, 50) as shown:
        assert not shown.due()
        clock[0] = 5.0
        shown.epoch(0, METRICS)
        shown.say("a line with [brackets], longer than a terminal is wide " + 100 * "x")
    first, second = stream.getvalue().splitlines()
    assert first == "epoch 1/4  train 50.0% loss 1.250 cosine 0.900 steps 12 free + 8 nudged  100 images/s  0:15 left"
    assert second.startswith("a line with [brackets]") and second.endswith("xxx")


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    with Progress(4, 10, 50, done=10) as shown:
        clock[0] = 1.0
        assert shown.due()
        shown.update(1, 5, METRICS)
        assert not shown.due()
        shown.epoch(1, METRICS)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    # Five batches of this process in a second, and 25 left.
    assert "epoch 2/4" in text and "train 50.0%" in text and "250 images/s  0:05 left" in text
    assert "━" in text and stream.getvalue().endswith("\x1b[2K")


def test_the_pace_leaves_compilation_out(clock, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with Progress(2, 10, 50) as shown:
        clock[0] = 100.0
        shown.compiled(5)
        shown.compiled(6)  # of later calls it knows nothing
        clock[0] = 101.0
        shown.epoch(0, METRICS)
    assert "250 images/s  0:02 left" in stream.getvalue()


def test_an_error_leaves_the_terminal_as_it_was(clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(RuntimeError), Progress(1, 1, 1):
        raise RuntimeError
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is shown again
