"""How the commands that run until Ctrl-C are ended."""

from __future__ import annotations

import signal


def sigterm_as_ctrl_c() -> None:
    """From here on SIGTERM ends this process as Ctrl-C does, so that nothing is left running."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
