"""Find Sablier's compiled contracts, which the rewards are tested against, or fetch them from npm into the cache.

    python3 scripts/sablier.py find     print their folder; exit 1 when they are not there
    python3 scripts/sablier.py ensure   fetch them into the cache when they are not there

They are licensed under BUSL-1.1: nothing of theirs is committed here or shipped with ParalleliX.
"""

from __future__ import annotations

import sys
from pathlib import Path

import npm
from machine import stop

PACKAGES = {
    "lockup": npm.Package(
        "@sablier/lockup",
        "4.0.1",
        "jEWd1RqcYpjFx9X5SCju9Aqlge+R5zSxb+7K2jYt7wtytTQmUzIRN+q4UadMcJMSmskHU+6mf9lDfkng9Bgjrw==",
    ),
    # The version that this Lockup names as its dependency.
    "evm-utils": npm.Package(
        "@sablier/evm-utils",
        "2.0.1",
        "LRyCMKTHMbnUbiTTO1IGsCVXzl+KL63K3qSjynwmXOZhUfPDE0MIqvvRlvF34JukWGy60IkdmnsPD0lWk+fzuw==",
    ),
}


def folder() -> Path:
    return npm.cache_folder("sablier") / "-".join(package.version for package in PACKAGES.values())


def main(arguments: list[str]) -> None:
    match arguments:
        case ["find"]:
            if not folder().is_dir():
                sys.exit(1)
            print(folder())
        case ["ensure"]:
            npm.ensure(folder(), PACKAGES)
        case _:
            stop(f"unknown arguments {arguments}: give find or ensure")


if __name__ == "__main__":
    main(sys.argv[1:])
