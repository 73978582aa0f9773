"""What a person sees of a run: a live line on a terminal, a plain line an epoch elsewhere."""

import sys
import time
from typing import TextIO


class Progress:
    """Reports of a training loop. On a terminal the present epoch is redrawn in place, a few times a second."""

    def __init__(self, epochs: int, batches: int, batch_size: int, *, done: int = 0, stream: TextIO | None = None):
        """**Arguments:** `done`, the batches that an earlier, interrupted process has done."""
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._epochs, self._batches, self._batch_size = epochs, batches, batch_size
        self._first, self._start, self._drawn = done, time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether the live line should be redrawn; asking for its numbers makes the device wait."""
        return self._live and time.monotonic() - self._drawn > 0.25

    def update(self, epoch: int, batch: int, metrics: dict[str, float]) -> None:
        """Redraw the live line."""
        self._drawn = time.monotonic()
        done = epoch * self._batches + batch
        line = f"epoch {epoch + 1}/{self._epochs}  {batch}/{self._batches}  {_numbers(metrics)}  {self._pace(done)}"
        self._write("\r" + line[:159].ljust(159))

    def epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """One finished epoch, on a line that stays."""
        pace = self._pace((epoch + 1) * self._batches)
        line = f"epoch {epoch + 1}/{self._epochs}  {_numbers(metrics)}  {pace}"
        self.say(line)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._write("\r" + line.ljust(159) + "\n" if self._live else line + "\n")

    def _pace(self, done: int) -> str:
        elapsed, fresh = time.monotonic() - self._start, done - self._first
        if not fresh:
            return ""
        left = elapsed / fresh * (self._epochs * self._batches - done)
        return f"{fresh * self._batch_size / elapsed:,.0f} images/s  {_clock(left)} left"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


_SHOWN = (
    ("accuracy", "train {:.1%}"),
    ("r2", "train R2 {:.3f}"),
    ("loss", "loss {:.3f}"),
    ("validation_accuracy", "validation {:.2%}"),
    ("validation_r2", "validation R2 {:.4f}"),
    ("cosine_hidden", "cosine {:.3f}"),
    ("validation_residual_max", "residual {:.0e}"),
    ("free_steps", "steps {:.0f}"),
    ("nudged_steps", "+{:.0f}"),
    ("unsettled_fraction", "unsettled {:.2%}"),
)


def _numbers(metrics: dict[str, float]) -> str:
    return " ".join(form.format(metrics[name]) for name, form in _SHOWN if name in metrics)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
