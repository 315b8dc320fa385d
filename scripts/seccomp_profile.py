"""Writes deploy/compose/seccomp-tools.json: what the tools service may ask the kernel for in a container.

`python -m scripts.seccomp_profile [header]`. It allows the calls of the kernel's own list but those named here;
unlike the usual profile of container engines it allows namespaces and mounts, which isolation of tier N is made of. A
container that has it holds no capability outside of its own user namespaces.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from scripts.contracts import ROOT

PROFILE = ROOT / "deploy" / "compose" / "seccomp-tools.json"
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")

# Newer than the header of a stable distribution, and harmless.
NEWER = (
    "cachestat",
    "fchmodat2",
    "futex_requeue",
    "futex_wait",
    "futex_wake",
    "getxattrat",
    "listmount",
    "listxattrat",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "map_shadow_stack",
    "mseal",
    "removexattrat",
    "setxattrat",
    "statmount",
)
# Calls of 64-bit Arm that x86 lacks or has under another name.
ARM = ("arch_prctl", "renameat", "sync_file_range2")

REFUSED = {
    "kernel code": ("bpf", "create_module", "delete_module", "finit_module", "init_module", "query_module"),
    "another kernel": ("kexec_file_load", "kexec_load", "reboot"),
    "the machine": ("acct", "iopl", "ioperm", "quotactl", "quotactl_fd", "swapoff", "swapon", "syslog", "vhangup"),
    "clocks of everybody": ("adjtimex", "clock_adjtime", "clock_settime", "settimeofday"),
    "keys without namespaces": ("add_key", "keyctl", "request_key"),
    "files by handle": ("name_to_handle_at", "open_by_handle_at"),
    "other processes": ("kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"),
    "much kernel for little use": (
        "fanotify_init",
        "fanotify_mark",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "lookup_dcookie",
        "perf_event_open",
        "userfaultfd",
        "vmsplice",
    ),
    "memory of other nodes": ("mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"),
    "long gone": (
        "_sysctl",
        "afs_syscall",
        "get_kernel_syms",
        "getpmsg",
        "nfsservctl",
        "putpmsg",
        "security",
        "sysfs",
        "tuxcall",
        "uselib",
        "ustat",
        "vserver",
    ),
}


def profile(header: Path) -> str:
    """Return the profile for the calls that a header lists."""
    refused = {name for names in REFUSED.values() for name in names}
    known = set(re.findall(r"#define __NR_(\w+) ", header.read_text())) | set(NEWER) | set(ARM)
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [{"names": sorted(known - refused), "action": "SCMP_ACT_ALLOW"}],
    }
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    PROFILE.write_text(profile(Path(sys.argv[1]) if len(sys.argv) > 1 else HEADER))
