"""What a client does just now, in a line at the bottom of its terminal: round, epoch, and what comes next."""

from __future__ import annotations

import time

from federation.live_lines import LiveLines, bar

BAR_WIDTH = 20  # columns


class Progress:
    """What a client does just now. From `lines.start()` to `lines.stop()`, it is shown if there is a terminal."""

    def __init__(self) -> None:
        self.lines = LiveLines(self._render)
        self.tell("")

    def tell(self, doing: str, then: str = "") -> None:
        """Set what the client does from now on, and what comes next."""
        self._doing, self._then = doing, then
        self._epoch, self._part = "", 0.0
        self._began = time.monotonic()

    def show(self, epochs_done: float, epochs: int, part: float) -> None:
        """Set how many of its epochs a fit has done, such as 1.73, and which part of its time is over, from 0 to 1."""
        self._epoch, self._part = f"epoch {int(epochs_done) + 1} of {epochs}", part

    def _render(self, width: int, _height: int) -> list[str]:
        parts = [self._doing, self._epoch, self._bar(), self._then]
        return [", ".join(part for part in parts if part)[:width]]

    def _bar(self) -> str:
        if not self._part:
            return ""
        seconds = (time.monotonic() - self._began) * (1 / self._part - 1)
        return f"{bar(self._part, BAR_WIDTH)} {self._part:.0%}, {seconds:.0f} s left"


progress = Progress()  # of this process
show_progress = progress.show  # for the script's training loop
