"""39 to 48: every way out that the kernel knows."""

from __future__ import annotations

import os
import socket
import stat

from .world import Foiled, World, each

_FAST_OPEN = 0x20000000
_MPTCP = 262


def connect_to_database(world: World) -> str:
    def connect() -> str:
        with socket.create_connection(("127.0.0.1", world.port), timeout=5) as made:
            return str(made.getpeername())

    def listen() -> str:
        with socket.create_server(("127.0.0.1", 0)) as made:
            return str(made.getsockname())

    return str(each(connect, listen))


def connect_by_sending(world: World) -> int:
    with socket.socket() as made:
        return made.sendto(b"x", _FAST_OPEN, ("127.0.0.1", world.port))


def connect_many_ways(world: World) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _MPTCP) as made:
        made.connect(("127.0.0.1", world.port))
        return str(made.getpeername())


def send_datagram(world: World) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        return made.sendto(b"x", ("127.0.0.1", world.datagram_port))


def open_strange_sockets(world: World) -> str:
    kinds = [
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        (socket.AF_PACKET, socket.SOCK_RAW, 0),
        (socket.AF_NETLINK, socket.SOCK_RAW, 0),
        (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
        (socket.AF_INET6, socket.SOCK_STREAM, 0),
    ]

    def make(family: int, kind: int, protocol: int) -> str:
        with socket.socket(family, kind, protocol) as made:
            return str(made.family)

    return str(each(*(lambda kind=kind: make(*kind) for kind in kinds)))


def connect_to_path(world: World) -> str:
    def connect(path: str) -> str:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(path)
            return path

    paths = (str(world.outside("socket")), "/var/run/docker.sock", "/run/containerd/containerd.sock")
    return str(each(*(lambda path=path: connect(path) for path in paths)))


def connect_to_abstract_name(world: World) -> str:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(f"\0{world.abstract}")
        return world.abstract


def send_from_pair(world: World) -> int:
    def send(kind: int) -> int:
        here, there = socket.socketpair(socket.AF_UNIX, kind)
        with here, there:
            return here.sendto(b"x", str(world.outside("datagrams")))

    return int(each(lambda: send(socket.SOCK_DGRAM), lambda: send(socket.SOCK_SEQPACKET)))


def pass_descriptor(world: World) -> str:
    def over_pair() -> str:
        here, there = socket.socketpair()
        with here, there:
            socket.send_fds(here, [b"x"], [0])
            return str(socket.recv_fds(there, 1, 1)[1])

    def over(descriptor: int) -> str:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise Foiled("no socket")
        with socket.socket(fileno=os.dup(descriptor)) as made:
            socket.send_fds(made, [b"\0\0\0\0"], [0])
        return f"passed over {descriptor}"

    return str(each(over_pair, *(lambda number=number: over(number) for number in range(3, 64))))


def encrypt_in_kernel(world: World) -> str:
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as made:
        made.bind(("hash", "sha256"))
        return "sha256"
