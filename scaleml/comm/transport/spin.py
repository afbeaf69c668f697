"""Spinning: how often to look for something before sleeping. To be woken takes 25 to 50 us, a look about one."""

from __future__ import annotations

import os
from typing import Final

LOOKS: Final = 8 if (os.cpu_count() or 1) > 1 else 1
"""Some 10 us in all, about as long as what is waited for takes; once, where whoever is waited for needs this very core."""
