"""How the commands that run until Ctrl-C are ended."""

from __future__ import annotations

import signal
import time
from typing import NoReturn


def sigterm_as_ctrl_c() -> None:
    """From here on SIGTERM ends this process as Ctrl-C does, so that nothing is left running."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def until_ctrl_c() -> NoReturn:
    """Waits for KeyboardInterrupt.

    In short sleeps: the kernel may hand the signal to another thread (Ray has many), and then a
    long sleep of the main thread, where Python would raise it, is not cut short.
    """
    while True:
        time.sleep(0.5)
