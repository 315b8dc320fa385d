"""Attacks over the network and over sockets of the host."""

# ruff: noqa: E501 - sources of tools are text

from __future__ import annotations

from hostile.attacks import Attack

ATTACKS = [
    Attack(
        "TCP to a service on loopback",
        'def attack(facts):\n    return {"hit": worked(lambda: socket.create_connection(("127.0.0.1", facts["tcp_port"]), 1))}\n',
    ),
    Attack(
        "UDP to a service on loopback",
        """
def attack(facts):
    def send():
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", facts["udp_port"]))
    return {"hit": worked(send)}
""",
    ),
    Attack(
        "listen for others",
        """
def attack(facts):
    def listen():
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        server.listen()
    return {"hit": worked(listen)}
""",
    ),
    Attack(
        "a Unix socket of the service",
        """
def attack(facts):
    return {"hit": worked(lambda: socket.socket(socket.AF_UNIX).connect(facts["unix_path"]))}
""",
    ),
    Attack(
        "an abstract socket of the service",
        """
def attack(facts):
    return {"hit": worked(lambda: socket.socket(socket.AF_UNIX).connect("\\0" + facts["abstract"]))}
""",
    ),
    Attack(
        "a datagram pair that sends to the service",
        """
def attack(facts):
    def send():
        ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.sendto(b"x", "\\0" + facts["abstract_datagram"])
    return {"hit": worked(send)}
""",
    ),
    Attack(
        "raw and packet sockets",
        """
def attack(facts):
    return {"hit": worked(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
            or worked(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))}
""",
    ),
    Attack(
        "netlink", 'def attack(facts):\n    return {"hit": worked(lambda: socket.socket(socket.AF_NETLINK, 3, 0))}\n'
    ),
    Attack(
        "vsock, crypto and other families",
        """
def attack(facts):
    families = [number for number in range(3, 46) if number not in (socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET)]
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW)
    return {"hit": [f for f in families for k in kinds if worked(lambda: socket.socket(f, k))] != []}
""",
    ),
    Attack(
        "sockets by io_uring",
        """
def attack(facts):
    return {"hit": syscall(425, 425, 4, ctypes.create_string_buffer(120)) >= 0}
""",
    ),
    Attack(
        "a local server as the retired server's image loader would fetch it (CVE-2026-4964)",
        """
import urllib.request
def attack(facts):
    urls = ["file://" + facts["secret_file"], f"http://127.0.0.1:{facts['tcp_port']}/", "http://169.254.169.254/"]
    return {"hit": [u for u in urls[:2] if worked(lambda: urllib.request.urlopen(u, timeout=0.3).read())] != []}
""",
    ),
]
