"""No core dumps: they hold the texts that are on board."""

from __future__ import annotations

import resource


def forbid_core_dumps() -> None:
    """For this process and those that it starts; `prlimit --core` allows them again, one by one."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # One byte, not none: of Linux's two limits it is the one that also stops cores that are piped
    # to a program, such as systemd-coredump. No core fits into it.
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))
