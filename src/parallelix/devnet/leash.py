"""`python leash.py PARENT CPUS COMMAND…`: becomes COMMAND, on the given CPUs, and dies when PARENT does.

PARENT is a process id; `1234:15` asks for signal 15 instead of 9, for a program that ends by it and has to save first.

A parent that is killed cannot clean up. Linux does it for us: the setting outlives the change of program. Elsewhere the
orderly stop is all there is. Standard library only, and started by its path, so that it costs ten milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, cpus: str, *command: str) -> None:
    if sys.platform == "linux":
        parent_pid, _, number = parent.partition(":")
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number or signal.SIGKILL), 0, 0, 0)
        # The parent may have died before the line above.
        if os.getppid() != int(parent_pid):
            sys.exit(1)
        if cpus:
            os.sched_setaffinity(0, {int(each) for each in cpus.split(",")})
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
