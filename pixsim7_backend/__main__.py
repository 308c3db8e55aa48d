"""``python -m pixsim7_backend`` is the command ``pixsim7``."""

from __future__ import annotations

from pixsim7_backend.cli import main

if __name__ == "__main__":
    main()
