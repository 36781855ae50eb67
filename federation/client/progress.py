"""How far a fit is: the end of its epochs or of its seconds, and a line with a bar on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Iterable, Iterator, TypeVar

Batch = TypeVar("Batch")
REFRESH = 0.5  # seconds
BAR = 20  # characters


class FitProgress:
    """Counts the steps of a fit of `epochs`, each of `num_batches`, that may take `seconds`."""

    def __init__(self, epochs: int, num_batches: int, seconds: float) -> None:
        self.epochs, self.num_batches, self.seconds = epochs, num_batches, seconds
        self.steps_done, self.time_used = 0, 0.0  # time: of `seconds`, from 0 to 1
        self._started = time.monotonic()
        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._show_at = self._started + REFRESH if on_terminal else float("inf")
        self._is_shown = False

    @property
    def epochs_done(self) -> float:
        """How many epochs are done, such as 1.73."""
        return self.steps_done / self.num_batches

    @property
    def is_over(self) -> bool:
        """Whether the epochs are done, or the seconds over."""
        return self.steps_done == self.epochs * self.num_batches or self.time_used >= 1

    @property
    def fraction(self) -> float:
        """The part of the fit that is over in the middle of this step, above 0 and at most 1."""
        epoch, step = divmod(self.steps_done, self.num_batches)
        return max((epoch + (step + 0.5) / self.num_batches) / self.epochs, self.time_used)

    def steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches of an epoch, a step each, until the fit is over."""
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
        if self.is_over:
            self._print("")
        elif now >= self._show_at:
            self._show_at = now + REFRESH
            done = self.fraction
            bar = "#" * round(done * BAR)
            left = (now - self._started) * (1 / done - 1)
            epoch = self.steps_done // self.num_batches + 1
            self._print(f"epoch {epoch} of {self.epochs} [{bar:.<{BAR}}] {done:.0%}, {left:.0f} s left")

    def _print(self, text: str) -> None:
        """Write the line over the one before."""
        if text or self._is_shown:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:<{width}}", end="" if text else "\r", flush=True)
        self._is_shown = bool(text)
