"""20 to 38: other processes, programs, and what the kernel offers beside them."""

from __future__ import annotations

import pytest

from tests.escape.arena import Arena
from tests.escape.attempts import processes

pytestmark = pytest.mark.anyio


async def test_020_trace_others(arena: Arena) -> None:
    """No process can be traced."""
    await arena.denied(processes.trace_others)


async def test_021_read_memory_by_call(arena: Arena) -> None:
    """No process can be read by process_vm_readv."""
    await arena.denied(processes.read_memory_by_call)


async def test_022_take_descriptor(arena: Arena) -> None:
    """No descriptor can be taken out of another process."""
    await arena.denied(processes.take_descriptor)


async def test_023_signal_others(arena: Arena) -> None:
    """Neither the server nor its group, the parent or everybody can be signalled."""
    await arena.denied(processes.signal_others)


async def test_024_limit_others(arena: Arena) -> None:
    """No other process can be given limits."""
    await arena.denied(processes.limit_others)


async def test_025_slow_down_others(arena: Arena) -> None:
    """No other process can be bound to a processor or be put behind others."""
    await arena.denied(processes.slow_down_others)


async def test_026_fork_bomb(arena: Arena) -> None:
    """There is no second process."""
    await arena.denied(processes.fork_bomb)


@pytest.mark.thorough
async def test_027_thread_bomb(used_up: Arena) -> None:
    """Threads end at the limit of its user, where it has one; otherwise at that of its memory."""
    await used_up.denied(processes.thread_bomb, size=6000)


async def test_028_run_shell(arena: Arena) -> None:
    """No program can be started, and the process cannot become one."""
    await arena.denied(processes.run_shell)


async def test_029_run_from_memory(arena: Arena) -> None:
    """No program can be run from memory, nor from the scratch directory."""
    await arena.denied(processes.run_from_memory)


async def test_030_gain_privileges(arena: Arena) -> None:
    """A set-uid program does not help, and nobody becomes root."""
    await arena.denied(processes.gain_privileges)


async def test_031_mount_in_namespace(arena: Arena) -> None:
    """There are no namespaces to be root in."""
    await arena.denied(processes.mount_in_namespace)


async def test_032_use_other_numbers(used_up: Arena) -> None:
    """System calls by the numbers of other processors' programs end the process."""
    await used_up.denied(processes.use_other_numbers)


async def test_033_make_ring(arena: Arena) -> None:
    """There is no io_uring, which would make calls that no filter sees."""
    await arena.denied(processes.make_ring)


async def test_034_use_kernel_machines(arena: Arena) -> None:
    """The kernel's machines, counters, page faults and keys are closed."""
    await arena.denied(processes.use_kernel_machines)


async def test_035_share_memory(arena: Arena) -> None:
    """There are no segments, queues or semaphores that would outlive it."""
    await arena.denied(processes.share_memory)


async def test_036_type_on_terminal(arena: Arena) -> None:
    """Nothing can be typed on a terminal of the host."""
    await arena.denied(processes.type_on_terminal)


async def test_037_confine_everybody(arena: Arena) -> None:
    """A plugin cannot confine the thread that answers the host's questions."""
    await arena.denied(processes.confine_everybody)


async def test_038_outlive_kill(arena: Arena) -> None:
    """Nothing of it can outlive it."""
    await arena.denied(processes.outlive_kill)
