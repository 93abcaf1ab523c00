"""Ending a command that runs until Ctrl-C."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, signal
from fastgan_aug.cli.signals import sigterm_as_ctrl_c
sigterm_as_ctrl_c()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
except KeyboardInterrupt:
    print("tidied up")
"""


def test_sigterm_lets_a_command_tidy_up() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "tidied up\n"
