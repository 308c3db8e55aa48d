"""What lies side by side in the zygote is what it was, wherever it lies; tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc, sys
from pixsim7_backend.infrastructure.plugins._jail.pages import gather_code, gather_names, put_finders_away

def outer(factor, *, offset=1):
    def inner(value):
        return [each * factor + offset for each in (value, value)]
    return inner

def unused():
    return 0

kept = outer(2)
was, other, modules = outer.__code__, unused.__code__, dict(sys.modules)
gather_code(lambda: outer(3)(4))
assert outer.__code__ is not was and unused.__code__ is other, "only what ran was copied"
assert outer.__code__ == was and outer(3, offset=0)(4) == [12, 12] and kept(1) == [3, 3]
assert sys.getprofile() is None

gather_names()
assert list(sys.modules.items()) == list(modules.items())

put_finders_away()
assert not sys.path_importer_cache
import wave, pixsim7_backend.infrastructure.plugins._jail.frames
assert sys.modules["wave"] is wave and sys.path_importer_cache, "imports find what they need anew"
print("done")
"""


def test_nothing_is_changed_but_its_place() -> None:
    """Functions return what they did, modules keep their names and order, and imports go on."""
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("done\n", "")
