"""What an operator is told when a command cannot go on, and the exit code that tells a service manager.

NodeError                     exit 1
├── KeyRefused                exit 3  a key or its folder is loose, foreign, a link, damaged or missing
├── KeyExists                 exit 3  init would replace a key
├── ConfigRefused             exit 2  a value in config.toml or on the command line
├── RuntimeNotReady           exit 4  Ollama or llama.cpp is down, too old, or has no model
├── TierMismatch              exit 6  this machine is below the tier that was registered
├── GpuMissing                exit 6  --gpu without a usable one
├── Busy                      exit 7  another command holds this node's folder
└── ServiceFailed             exit 1  systemd or launchd refused

A restart may cure 4 to 7 (a runtime or a driver that comes up late), never 2 and 3: the systemd unit says so too.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_STOPPED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_KEYS = 3
EXIT_RUNTIME = 4
EXIT_TIER = 6
EXIT_BUSY = 7
EXIT_INTERRUPTED = 130


class NodeError(Exception):
    """A refusal. `code` is stable; the message names the thing, the value, the bound and the way out."""

    code: ClassVar[str] = "node.failed"
    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class KeyRefused(NodeError):
    code = "node.key_refused"
    exit_code = EXIT_KEYS


class KeyMissing(KeyRefused):
    code = "node.key_missing"


class KeyExists(NodeError):
    code = "node.key_exists"
    exit_code = EXIT_KEYS


class ConfigRefused(NodeError):
    code = "node.config_refused"
    exit_code = EXIT_USAGE


class SecretOffered(ConfigRefused):
    """Somebody typed what looks like a private key where an address belongs. The value is never repeated."""

    code = "node.secret_offered"


class RuntimeNotReady(NodeError):
    code = "node.runtime_not_ready"
    exit_code = EXIT_RUNTIME


class ModelNotPresent(RuntimeNotReady):
    code = "node.model_missing"


class TierMismatch(NodeError):
    code = "node.tier_mismatch"
    exit_code = EXIT_TIER


class GpuMissing(NodeError):
    code = "node.gpu_missing"
    exit_code = EXIT_TIER


class Busy(NodeError):
    code = "node.busy"
    exit_code = EXIT_BUSY


class ServiceFailed(NodeError):
    code = "node.service_failed"
