"""What a person sees of a run: a bar and live numbers on a terminal, a plain line an epoch everywhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress as Bars, TextColumn
from rich.table import Column


class Progress:
    """Reports of a training loop, as a context: where there is a terminal, a bar below them moves until it ends."""

    def __init__(self, epochs: int, batches: int, batch_size: int, *, done: int = 0):
        """**Arguments:** `done`, the batches that an earlier, interrupted process has done."""
        self._console = Console(file=sys.stdout, highlight=False)
        self._live = sys.stdout.isatty()
        self._epochs, self._batches, self._batch_size = epochs, batches, batch_size
        self._first, self._start, self._drawn = done, time.monotonic(), 0.0
        self._compiled = False
        # A narrow terminal cuts the numbers off, and never the epoch.
        count = TextColumn("epoch {task.fields[epoch]}", table_column=Column(min_width=6 + len(f"{epochs}/{epochs}")))
        columns = count, BarColumn(10), TextColumn("{task.fields[numbers]}")
        # Redrawn from the loop alone: asking for the numbers makes the device wait.
        self._bars = Bars(*columns, console=self._console, transient=True, auto_refresh=False, disable=not self._live)
        self._bar = self._bars.add_task("", total=epochs * batches, completed=done, epoch="", numbers="compiling")

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        del kind, error, at
        self._bars.stop()

    def compiled(self, done: int) -> None:
        """The first call has returned, after `done` batches: images a second are counted from here."""
        if not self._compiled:
            self._compiled, self._first, self._start = True, done, time.monotonic()

    def due(self) -> bool:
        """Whether the bar should be redrawn; asking for its numbers makes the device wait."""
        return self._live and time.monotonic() - self._drawn > 0.25

    def update(self, epoch: int, batch: int, metrics: dict[str, float]) -> None:
        """Redraw the bar."""
        self._drawn = time.monotonic()
        done = epoch * self._batches + batch
        numbers = escape(f"{self._pace(done)}  {_numbers(metrics)}")
        self._bars.update(self._bar, completed=done, refresh=True, epoch=f"{epoch + 1}/{self._epochs}", numbers=numbers)

    def epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """One finished epoch, on a line that stays."""
        self.say(f"epoch {epoch + 1}/{self._epochs}  {_numbers(metrics)}  {self._pace((epoch + 1) * self._batches)}")

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False, soft_wrap=True)

    def _pace(self, done: int) -> str:
        elapsed, fresh = time.monotonic() - self._start, done - self._first
        if not fresh:
            return ""
        left = elapsed / fresh * (self._epochs * self._batches - done)
        return f"{fresh * self._batch_size / elapsed:,.0f} images/s  {_clock(left)} left"


_SHOWN = (
    ("accuracy", "train {:.1%}"),
    ("r2", "train R2 {:.3f}"),
    ("loss", "loss {:.3f}"),
    ("validation_accuracy", "validation {:.2%}"),
    ("validation_r2", "validation R2 {:.4f}"),
    ("cosine_hidden", "cosine {:.3f}"),
    ("validation_residual_max", "residual {:.0e}"),
    ("free_steps", "steps {:.0f} free"),
    ("nudged_steps", "+ {:.0f} nudged"),
    ("unsettled_fraction", "unsettled {:.2%}"),
)


def _numbers(metrics: dict[str, float]) -> str:
    return " ".join(form.format(metrics[name]) for name, form in _SHOWN if name in metrics)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
