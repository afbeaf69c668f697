"""Backends by their names; the framework of one is imported when it is made."""

from __future__ import annotations

from scaleml.frameworks.backend import Backend, Place


def make_backend(name: str, place: Place) -> Backend:
    """Return a backend by its name, one of `BACKENDS`, not started yet."""
    if name == "jax":
        from scaleml.frameworks.jax_processes import JaxProcesses

        return JaxProcesses(place)
    from scaleml.frameworks.process_group import ProcessGroup

    return ProcessGroup(place, None if name == "torchrun" else name)
