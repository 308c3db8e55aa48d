"""Runs the escape suite once for each kind of host that this machine can be: ``python -m tests.escape [PYTEST…]``."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import traceback
from pathlib import Path

from pixsim7_backend.infrastructure.plugins._jail.confine import bpf
from pixsim7_backend.infrastructure.plugins._jail.confine.privileges import forbid_new_privileges
from pixsim7_backend.infrastructure.plugins._jail.confine.syscalls import find_machine, find_number, invoke
from tests.integration.jail.forked import MODES, Mode, become_host, find_obstacle

_HERE = Path(__file__).parent


def main() -> int:
    """Run each mode in a process of its own; return 1 where one fails."""
    failed = 0
    for mode in MODES:
        obstacle = find_obstacle(mode)
        sys.stdout.write(f"\n===== {mode.name}{f': not here, {obstacle}' if obstacle else ''}\n")
        sys.stdout.flush()
        if not obstacle:
            failed |= _run(mode)
    return failed


def _run(mode: Mode) -> int:
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            become_host(mode)
            if not mode.has_namespaces:
                _lose_namespaces()
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "", str(_HERE)]
            os.execv(sys.executable, [*command, *sys.argv[1:]])  # noqa: S606 - it needs none
        except Exception:  # noqa: BLE001 - the process ends here
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return int(os.waitstatus_to_exitcode(status) != 0)


def _lose_namespaces() -> None:
    """Be refused namespaces, as in a container: by a filter that all later processes have."""
    machine = find_machine()
    assert machine is not None
    number = find_number("unshare", machine)
    assert number is not None
    if os.geteuid() != 0:
        forbid_new_privileges()
    refused = {number: bpf.refuse(errno.EPERM)}
    program = bpf.assemble(machine.audit, refused, foreign_from=1 << 31, unknown=bpf.ALLOW, other=bpf.ALLOW)
    buffer = ctypes.create_string_buffer(program, len(program))
    described = (len(program) // 8).to_bytes(8, "little") + ctypes.addressof(buffer).to_bytes(8, "little")
    invoke("seccomp", 1, 0, described)


if __name__ == "__main__":
    raise SystemExit(main())
