"""Starting a process that goes on when this one ends."""

import os
import subprocess
import sys

__all__ = ["start_apart"]


def start_apart(module: str, argument: str, log: str = os.devnull) -> None:
    """Run `python -m module argument` on its own; what it prints goes to the file `log`. It runs no code of the folder
    that it is started in, which may be a stranger's."""
    command = [sys.executable, "-P", "-m", module, argument]
    if not hasattr(os, "posix_spawn"):
        with open(log, "wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        process.returncode = 0  # nobody will wait for it
        return
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=files, setsid=True)
