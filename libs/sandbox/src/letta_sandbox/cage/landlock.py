"""Landlock: the process may read a few directories, and reaches no other process."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Collection, Iterable

from letta_sandbox.cage import syscalls

_CREATE_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
# Rights of the first version of Landlock; `_handled_fs` adds those that came later.
_FIRST_FS_BITS = (1 << 13) - 1
# To bind and to connect.
_TCP = 0b11
# To reach abstract sockets and to signal processes outside.
_SCOPES = 0b11

# Above the descriptors that a process of a call keeps.
_HIGH = 100


def abi() -> int:
    """Return the kernel's Landlock version. Raises OSError when it has none."""
    return syscalls.call("landlock_create_ruleset", None, 0, _CREATE_VERSION)


def _handled_fs(version: int) -> int:
    bits = _FIRST_FS_BITS
    # Moving between directories came with version 2, truncating with 3, ioctl on devices with 5.
    for needs, bit in ((2, 13), (3, 14), (5, 15)):
        if version >= needs:
            bits |= 1 << bit
    return bits


def ruleset(
    readable: Iterable[str],
    hidden: Collection[str],
    devices: Iterable[str],
    *,
    programs: bool = False,
    executable: Iterable[str] = (),
) -> int:
    """Return a descriptor of rules: read (with `programs` also start) what is listed, read and write the devices.

    `executable` are files that may be read and started.

    Rules hold for all below a directory, so one with something hidden in it is allowed entry by entry, and listed.
    """
    version = abi()
    attributes = struct.pack("=QQQ", _handled_fs(version), _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    # A kernel refuses a structure that is longer than the one of its version, unless the rest is zero.
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = syscalls.call("landlock_create_ruleset", ctypes.create_string_buffer(attributes, 24), size, 0)
    read = _READ_FILE | (_EXECUTE if programs else 0)
    for path in readable:
        if any(place.startswith(path + "/") for place in hidden):
            _allow(rules, path, _READ_DIR)
            for name in os.listdir(path):  # noqa: PTH208 - pathlib is not loaded in the fork server
                if f"{path}/{name}" not in hidden:
                    _allow(rules, f"{path}/{name}", read | _READ_DIR)
        else:
            _allow(rules, path, read | _READ_DIR)
    for path in devices:
        _allow(rules, path, _READ_FILE | _WRITE_FILE)
    for path in executable:
        _allow(rules, path, _READ_FILE | _EXECUTE)
    high = fcntl.fcntl(rules, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    os.close(rules)
    return high


def bounds_signals() -> bool:
    """Whether rules keep a process from signalling those outside of them."""
    try:
        return abi() >= 6
    except OSError:
        return False


def _allow(rules: int, path: str, access: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # The kernel refuses rights of directories in the rule of a file.
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib is not loaded in the fork server
            access &= ~_READ_DIR
        rule = struct.pack("=Qi", access, target)
        syscalls.call("landlock_add_rule", rules, _RULE_PATH_BENEATH, ctypes.create_string_buffer(rule, 12), 0)
    finally:
        os.close(target)


def restrict(rules: int) -> None:
    """Put the rules on the calling process, for good. Needs no_new_privs."""
    syscalls.call("landlock_restrict_self", rules, 0)
