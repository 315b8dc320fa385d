"""Becomes a PostgreSQL program that ends with its parent. Run as a script by `launcher`.

Arguments: `<parent pid> <identity> <program> <arguments...>`. The identity is `same` (keep the user), `userns` (a user
namespace in which root appears as user 1000, because PostgreSQL refuses to run as root) or `<uid>:<gid>` (become that
user, and keep the right to enter directories that only root may enter).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


def main(parent: int, identity: str, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if identity == "userns":
        _enter_user_namespace(libc)
    elif identity != "same":
        uid, gid = identity.split(":")
        _become(libc, int(uid), int(gid))
    if sys.platform == "linux":
        # After the change of user, which clears it.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        # The parent may have died before the signal was asked for; then nobody would ever send it.
        if os.getppid() != parent:
            return
    os.execv(command[0], command)


def _enter_user_namespace(libc: ctypes.CDLL) -> None:
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespaces here")
    # The kernel takes a map of groups without privileges only from who can no longer drop groups.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"1000 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"1000 {gid} 1")


def _become(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    # Without it, changing from root to another user drops all capabilities at once.
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    bit = 1 << CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    # Ambient, or `execv` would take it away again. Where capset fails, directories must be open to the user.
    if libc.capset(header, sets) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
