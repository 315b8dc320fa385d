"""Makes this process what one in a container is: its system calls and its capabilities.

"docker" has Docker's defaults: our own profile without what namespaces need. "old docker" has no Landlock either.
"profile" has the profile that we ship. Not here: AppArmor, the masked parts of /proc.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
from pathlib import Path

from letta_sandbox.cage import syscalls

PROFILE = Path(__file__).resolve().parents[2] / "deploy/compose/seccomp-tools.json"
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
OF_NAMESPACES = {
    "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root",
    "setdomainname", "sethostname", "setns", "umount2", "unshare",
}  # fmt: skip
OF_LANDLOCK = {"landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self"}
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
# audit_write and setfcap.
CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}

_LOAD, _EQUAL, _ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _DENIED, _MISSING, _NEW_NAMESPACES = 0x7FFF0000, 0x00050001, 0x00050026, 0x7E020000


def is_possible() -> bool:
    """Whether this machine can tell the numbers of the system calls."""
    return HEADERS[syscalls.MACHINE].exists()


def allowed(kind: str) -> set[str]:
    """Return the names of the system calls that a kind of container may make."""
    (rule,) = json.loads(PROFILE.read_text())["syscalls"]
    refused = {"docker": OF_NAMESPACES, "old docker": OF_NAMESPACES | OF_LANDLOCK, "profile": set[str]()}
    return set(rule["names"]) - refused[kind]


def _number(names: set[str]) -> dict[str, int]:
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[syscalls.MACHINE].read_text())
    return {name: int(number) for name, number in found if name in names}


def enter(kind: str) -> None:
    """Put the filter on this process for good; programs that it starts have Docker's capabilities."""
    numbers = _number(allowed(kind))
    steps = [(_LOAD, 0, 0, 0)]
    clone, clone3 = numbers.pop("clone"), numbers.pop("clone3")
    if kind == "profile":
        numbers |= {"clone": clone, "clone3": clone3}
    else:
        steps += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _MISSING), (_EQUAL, 0, 4, clone), (_LOAD, 0, 0, 16)]
        steps += [(_ANY, 0, 1, _NEW_NAMESPACES), (_RETURN, 0, 0, _DENIED), (_RETURN, 0, 0, _ALLOW)]
    for number in numbers.values():
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _DENIED))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    if os.getuid() == 0:
        for capability in range(64):
            if capability not in CAPABILITIES:
                try:
                    syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)
                except OSError:
                    break
    else:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_SECCOMP, 2, ctypes.addressof(program))
