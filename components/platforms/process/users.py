"""User ids for services that must not run as root, or that must own nothing but their own folder.

The ids come from the range that systemd's `DynamicUser=` takes; they need no account, and no two services share one.
Run as `python -m components.platforms.process.users USER FOLDER… -- COMMAND…`, this becomes the command as that user.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DYNAMIC_USERS = range(61184, 65520)
"""https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#DynamicUser="""


def own_user(service: str) -> int:
    """The user id of a service: the caller's, or for root one that belongs to this service."""
    if os.geteuid() != 0:
        return os.geteuid()
    number = int.from_bytes(hashlib.sha256(service.encode()).digest()[:4], "big")
    return DYNAMIC_USERS[number % len(DYNAMIC_USERS)]


def identity(user: int) -> dict[str, Any]:
    """Arguments with which `subprocess` starts a program as that user."""
    return {} if user == os.geteuid() else {"user": user, "group": user, "extra_groups": []}


def give(folder: Path, user: int) -> None:
    """Make `user` the owner of a folder and all that is in it."""
    if user != os.geteuid():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)


def become(user: int, command: Sequence[str]) -> None:
    """Replace this process by the command, run by `user`."""
    if user != os.geteuid():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    os.execvp(command[0], list(command))


def main(arguments: Sequence[str]) -> None:
    split = arguments.index("--")
    user, *folders = arguments[:split]
    for folder in folders:
        give(Path(folder), int(user))
    # No account stands behind the id, but programs ask for a name and a home.
    os.environ |= {"USER": f"lab-{user}", "LOGNAME": f"lab-{user}", "HOME": folders[0]}
    become(int(user), arguments[split + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
