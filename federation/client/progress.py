"""What a client does just now, in a line at the bottom of its terminal: round, epoch, and what comes next."""

from __future__ import annotations

import time

from federation.live_lines import LiveLines, bar


class Progress:
    """What a client does just now; shown from `lines.start()` to `lines.stop()`, if there is a terminal."""

    def __init__(self) -> None:
        self.lines = LiveLines(self._render)
        self.tell("")

    def tell(self, doing: str, then: str = "") -> None:
        """Set what the client does from now on, and what comes next."""
        self._doing, self._then, self._fit = doing, then, ""
        self._began = time.monotonic()

    def show(self, epochs_done: float, epochs: int, part: float) -> None:
        """Set how many of its epochs a fit has done, such as 1.73, and which part of its time is over, from 0 to 1."""
        self._fit, self._part = f", epoch {int(epochs_done) + 1} of {epochs}", part

    def _render(self, width: int, _height: int) -> list[str]:
        text = self._doing + self._fit
        if self._fit:
            seconds = (time.monotonic() - self._began) * (1 / self._part - 1)
            text += f" {bar(self._part, width=20)} {self._part:.0%}, {seconds:.0f} s left"
        return [(text + self._then)[:width]]


progress = Progress()  # of this process
show_progress = progress.show  # for the script's training loop
