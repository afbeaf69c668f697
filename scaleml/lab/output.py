"""Output: what the notebook's page and its file hold of a lab, beside the widgets that live."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, final


@final
class Output:
    """The display of one lab in the outputs of its notebook, which can be replaced.

    Attributes
    ----------
    shown : bool
        Whether there is one.
    """

    def __init__(self) -> None:
        self._id = secrets.token_hex(16)
        self.shown = False

    def show(self, bundle: Mapping[str, Any]) -> None:
        """Put it into the cell that runs."""
        from IPython.display import display

        self.shown = True
        display(dict(bundle), raw=True, display_id=self._id)

    def replace(self, bundle: Mapping[str, Any]) -> None:
        """Have the page and the file hold this instead."""
        if self.shown:
            from IPython.display import update_display

            update_display(dict(bundle), raw=True, display_id=self._id)

    def forget(self) -> None:
        """Take it as gone from the page, as with its cell's output."""
        self.shown = False


def soon(*calls: Callable[[], None]) -> None:
    """Have the kernel's main loop call these, once no cell blocks it: figures are drawn on the main thread only."""
    from IPython import get_ipython

    loop: Any = getattr(getattr(get_ipython(), "kernel", None), "io_loop", None)
    for call in calls if loop is not None else ():
        loop.add_callback(call)
