"""A clock that stands still while the process is asleep."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mirada.train.pause import Clock

WAITS = """
import time
from mirada.train.pause import Clock
clock = Clock()
with clock.noticing_sleep():
    begun, counted = time.monotonic(), clock()
    print("ready", flush=True)
    while time.monotonic() - begun < 0.2:
        time.sleep(0.01)
    input()
    print(time.monotonic() - begun - (clock() - counted), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGTSTP"), reason="this system has no Ctrl-Z")
def test_the_clock_stands_still_while_the_process_sleeps() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    time.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate("\n")
    assert 0.5 <= float(out) < 5


def test_a_clock_that_never_slept_is_the_system_s_and_leaves_the_signal_as_it_was() -> None:
    clock, before = Clock(), signal.getsignal(signal.SIGTSTP)
    with clock.noticing_sleep():
        first, now = clock(), time.monotonic()
    assert abs(first - now) < 0.5
    assert signal.getsignal(signal.SIGTSTP) == before
