"""The background service: a systemd unit on Linux, a launchd job on macOS.

A node that stopped for good (a 403, exit 0) stays stopped: `Restart=on-failure`, `KeepAlive.SuccessfulExit=false`. A
refusal that no restart can cure (exit 2 and 3) ends a systemd service as well; launchd has no such rule and tries
again every `RESTART_SECONDS`. The unit says what the daemon may not do; it never names a secret.
"""

from __future__ import annotations

import os
import plistlib
import pwd
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parallelix.node.errors import EXIT_KEYS, EXIT_USAGE, ConfigRefused, ServiceFailed

NAME = "parallelix-node"
LABEL = "io.parallelix.node"
RESTART_SECONDS = 10
DRAIN_SECONDS = 900
"""The longest attempt that a stopping node finishes before it is killed."""
COMMAND_SECONDS_MAX = 120

Scope = Literal["user", "system"]

_PLAIN_ARGUMENT = re.compile(r"[A-Za-z0-9_./:@,+=-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What installing would do: one file, then these commands in order. `optional` commands may fail."""

    manager: Literal["systemd", "launchd"]
    scope: Scope
    path: Path
    content: str
    commands: tuple[tuple[str, ...], ...]
    optional: frozenset[str] = frozenset()


def plan(arguments: Sequence[str], *, home: Path, scope: Scope, environment: Mapping[str, str]) -> Plan:
    """For this platform. `arguments` is the whole command of the daemon, its program first."""
    for argument in arguments:
        if any(ord(character) < 32 for character in argument):
            raise ConfigRefused("service: a control character in an argument; remove it")
    user_home = Path.home()
    # `sudo parallelix-node service --system` installs the node of the one who typed it, not of root.
    user = (environment.get("SUDO_USER") if scope == "system" else None) or pwd.getpwuid(os.geteuid()).pw_name
    if sys.platform == "darwin":
        return launchd_plan(arguments, home=home, scope=scope, user_home=user_home, uid=os.getuid(), user=user)
    return systemd_plan(arguments, home=home, scope=scope, user_home=user_home, user=user, environment=environment)


def systemd_plan(
    arguments: Sequence[str], *, home: Path, scope: Scope, user_home: Path, user: str, environment: Mapping[str, str]
) -> Plan:
    if scope == "system":
        folder, manager = Path("/etc/systemd/system"), ("systemctl",)
    else:
        config_home = environment.get("XDG_CONFIG_HOME") or str(user_home / ".config")
        folder, manager = Path(config_home) / "systemd" / "user", ("systemctl", "--user")
    # Without lingering a user's services end with the last session, and do not start at boot.
    linger = () if scope == "system" else (("loginctl", "enable-linger", user),)
    return Plan(
        manager="systemd",
        scope=scope,
        path=folder / f"{NAME}.service",
        content=systemd_unit(arguments, home=home, scope=scope, user=user),
        commands=(
            *linger,
            (*manager, "daemon-reload"),
            (*manager, "enable", f"{NAME}.service"),
            (*manager, "restart", f"{NAME}.service"),
        ),
        optional=frozenset({"loginctl"}),
    )


def systemd_unit(arguments: Sequence[str], *, home: Path, scope: Scope, user: str) -> str:
    """The text of the unit. A user's manager cannot mount, so file systems are fenced in a system unit only."""
    identity = [f"User={user}"] if scope == "system" else []
    fences = _SYSTEM_FENCES if scope == "system" else []
    writable = [f"ReadWritePaths={_systemd_word(str(home))}"] if scope == "system" else []
    lines = [
        "[Unit]",
        "Description=ParalleliX node: serves inference requests and stays online",
        "Documentation=https://parallelix.io/docs/operate",
        *(["Wants=network-online.target", "After=network-online.target"] if scope == "system" else []),
        # A runtime that needs minutes to come up must not use up the attempts.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        *identity,
        f"Environment={_systemd_word(f'PARALLELIX_HOME={home}')}",
        # Only a command line knows variables.
        f"ExecStart={' '.join(_systemd_word(argument.replace('$', '$$')) for argument in arguments)}",
        "Restart=on-failure",
        f"RestartSec={RESTART_SECONDS}",
        f"RestartPreventExitStatus={EXIT_USAGE} {EXIT_KEYS}",
        "KillMode=mixed",
        f"TimeoutStopSec={DRAIN_SECONDS}",
        "UMask=0077",
        "LimitCORE=0",
        *_FENCES,
        *fences,
        *writable,
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if scope == 'system' else 'default.target'}",
        "",
    ]
    return "\n".join(lines)


_FENCES = [
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
]
_SYSTEM_FENCES = [
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    # Not ProtectClock: it closes every device but the clock, and with them the GPU.
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "PrivateTmp=yes",
    "RestrictNamespaces=yes",
]


def launchd_plan(arguments: Sequence[str], *, home: Path, scope: Scope, user_home: Path, uid: int, user: str) -> Plan:
    if scope == "system":
        folder, domain = Path("/Library/LaunchDaemons"), "system"
    else:
        folder, domain = user_home / "Library" / "LaunchAgents", f"gui/{uid}"
    path = folder / f"{LABEL}.plist"
    return Plan(
        manager="launchd",
        scope=scope,
        path=path,
        content=launchd_plist(arguments, home=home, user=user if scope == "system" else None),
        commands=(
            ("launchctl", "bootout", f"{domain}/{LABEL}"),
            ("launchctl", "bootstrap", domain, str(path)),
            ("launchctl", "kickstart", f"{domain}/{LABEL}"),
        ),
        # There is nothing to boot out the first time, and RunAtLoad may have started it already.
        optional=frozenset({"bootout", "kickstart"}),
    )


def launchd_plist(arguments: Sequence[str], *, home: Path, user: str | None = None) -> str:
    """The text of the job. `user` is who runs it, where it is not the one whose session it belongs to."""
    job = {
        "Label": LABEL,
        **({} if user is None else {"UserName": user}),
        "ProgramArguments": list(arguments),
        "EnvironmentVariables": {"PARALLELIX_HOME": str(home)},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RESTART_SECONDS,
        "ExitTimeOut": DRAIN_SECONDS,
        "ProcessType": "Interactive",
        "Umask": 0o077,
        "HardResourceLimits": {"Core": 0},
        # node.log holds what the daemon says, and rotates; these files would not.
        "StandardOutPath": "/dev/null",
        "StandardErrorPath": "/dev/null",
    }
    return plistlib.dumps(job, sort_keys=False).decode()


def install(chosen: Plan) -> None:
    """Writes the file and runs the commands. Raises `ServiceFailed` naming the command and what it said."""
    try:
        chosen.path.parent.mkdir(parents=True, exist_ok=True)
        _write(chosen.path, chosen.content)
    except OSError as error:
        raise ServiceFailed(
            f"{chosen.path}: cannot be written ({error.strerror}); a system service needs root: use sudo, or leave "
            "--system out"
        ) from error
    for command in chosen.commands:
        _run(command, optional=bool(chosen.optional.intersection(command[:2])))


def program(executable: str = sys.executable) -> list[str]:
    """How to run this very installation, whatever PATH says when the machine boots."""
    script = Path(executable).with_name(NAME)
    return [str(script)] if script.is_file() else [executable, "-m", "parallelix.node"]


def _run(command: Sequence[str], *, optional: bool) -> None:
    shown = " ".join(command)
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False, errors="replace"
        )
    except FileNotFoundError as error:
        if optional:
            return
        raise ServiceFailed(
            f"`{shown}`: no {command[0]} on this machine; run `parallelix-node start` under the service manager you "
            "have (--dry-run prints a unit to start from)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ServiceFailed(f"`{shown}`: no answer within {COMMAND_SECONDS_MAX} s; run it by hand") from error
    if done.returncode != 0 and not optional:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise ServiceFailed(f"`{shown}` ended with {done.returncode} and said: {said}; run it by hand")


def _write(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.write_text(content, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)


def _systemd_word(text: str) -> str:
    """As systemd reads it back: specifiers doubled, quoted where needed."""
    escaped = text.replace("%", "%%")
    if _PLAIN_ARGUMENT.fullmatch(escaped):
        return escaped
    inner = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'
