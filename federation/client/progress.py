"""Progress of a fit: it ends after its epochs or its seconds, and is shown in a line on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Iterable, Iterator, TypeVar

Batch = TypeVar("Batch")
REFRESH = 0.5  # seconds


class FitProgress:
    """Counts the steps of a fit of `epochs`, each of `num_batches`, that may take `seconds`."""

    def __init__(self, epochs: int, num_batches: int, seconds: float) -> None:
        self.epochs, self.num_batches, self.seconds = epochs, num_batches, seconds
        self.steps_done, self.time_used = 0, 0.0  # time: of `seconds`, from 0 to 1
        self._started = self._shown_at = time.monotonic()
        self._is_shown = sys.stdout.isatty()

    @property
    def epochs_done(self) -> float:
        """How many epochs are done, such as 1.73."""
        return self.steps_done / self.num_batches

    @property
    def fraction(self) -> float:
        """The fraction of the fit that is done in the middle of the next step, above 0 and at most 1."""
        epoch, step = divmod(self.steps_done, self.num_batches)
        return max((epoch + (step + 0.5) / self.num_batches) / self.epochs, self.time_used)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done or the seconds are over."""
        return self.steps_done >= self.epochs * self.num_batches or self.time_used >= 1

    def steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches of an epoch, one for each step, until the fit is over."""
        for batch in batches:
            yield batch
            self.end_step()
            if self.is_over:
                return

    def end_step(self) -> None:
        """Count a step."""
        now = time.monotonic()
        self.steps_done += 1
        self.time_used = (now - self._started) / self.seconds
        if self._is_shown and (self.is_over or now >= self._shown_at + REFRESH):
            self._shown_at = now
            width = shutil.get_terminal_size().columns - 1
            text = "" if self.is_over else self._line(now - self._started)
            print(f"\r{text:{width}.{width}}", end="\r", flush=True)  # over the line before

    def _line(self, elapsed: float) -> str:
        done = self.fraction
        epoch, left = self.steps_done // self.num_batches + 1, elapsed * (1 / done - 1)
        return f"epoch {epoch} of {self.epochs} [{'#' * round(done * 20):.<20}] {done:.0%}, {left:.0f} s left"
