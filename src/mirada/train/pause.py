"""Ctrl-Z: a run that is put to sleep and woken again loses nothing of its budget."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock"]


class Clock:
    """Seconds as `time.monotonic()` counts them, without those that the process slept after Ctrl-Z (SIGTSTP)."""

    def __init__(self) -> None:
        self._asleep = 0.0

    def __call__(self) -> float:
        return time.monotonic() - self._asleep

    @contextmanager
    def noticing_sleep(self) -> Iterator[None]:
        """Inside, SIGTSTP stops the process as always and the clock with it. Elsewhere than in the main thread, and on
        systems without that signal, nothing is noticed."""
        if not hasattr(signal, "SIGTSTP") or threading.current_thread() is not threading.main_thread():
            yield
            return

        def sleep(_number: int, _frame: object) -> None:
            began = time.monotonic()
            signal.raise_signal(signal.SIGSTOP)  # to this thread: it returns when the process is woken
            self._asleep += time.monotonic() - began

        before = signal.signal(signal.SIGTSTP, sleep)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, before)
