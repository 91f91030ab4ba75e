"""Find systemd-analyze, by which the tests check the service units, or install it. Containers of Debian lack it."""

from __future__ import annotations

import os
import platform
import shutil

from machine import install_debian_packages, say


def main() -> None:
    if platform.system() != "Linux" or shutil.which("systemd-analyze") is not None:
        return
    needed = os.environ.get("CI") == "true"
    if needed or (os.geteuid() == 0 and shutil.which("apt-get") is not None):
        install_debian_packages(["systemd"], needed_for="checking the service units")
    else:
        say("systemd-analyze is not here, so the tests of the service units will skip")


if __name__ == "__main__":
    main()
