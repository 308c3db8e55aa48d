"""Messages between launcher and zygote."""

from __future__ import annotations

import os
import socket
import threading

from pixsim7_backend.infrastructure.plugins._jail import control


def test_messages_and_descriptors_arrive() -> None:
    """Messages come whole and in order, a long one too; what was opened there can be used here."""
    here, there = socket.socketpair()
    reader, writer = os.pipe()
    long = {"text": "x" * 1_000_000}

    def send() -> None:
        control.send(here, {"first": 1}, [writer])
        control.send(here, long)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    received = control.receive(there)
    assert received is not None
    message, (copy,) = received
    assert message == {"first": 1}
    assert not os.get_inheritable(copy)
    os.write(copy, b"hello")
    assert os.read(reader, 5) == b"hello"
    assert control.receive(there) == (long, [])
    sender.join()
    here.close()
    assert control.receive(there) is None
    there.close()
    for descriptor in (reader, writer, copy):
        os.close(descriptor)


def test_half_a_message_is_none() -> None:
    """A side that ends in the middle of a message has said nothing."""
    here, there = socket.socketpair()
    here.sendall(b"\x00\x00\x00\x09{")
    here.close()
    assert control.receive(there) is None
    there.close()
