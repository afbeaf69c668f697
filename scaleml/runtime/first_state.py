"""The first state of a rank that trains: parameters and slots where they are to lie, and memory for gradients."""

from __future__ import annotations

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.devices import Device, fill
from scaleml.runtime.gradient import TAIL
from scaleml.runtime.parameter_server.message_format import buffer_items
from scaleml.runtime.plan import Plan
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import Strategy


def first_state(
    plan: Plan, world: Communicator, strategy: Strategy, shared: Array | None, device: Device
) -> tuple[TrainState, Array]:
    """Return the state, its parameters where others can read them, and memory for gradients; collective.

    Parameters
    ----------
    plan : Plan
        The run.
    world : Communicator
        All ranks.
    strategy : Strategy
        Its choices made.
    shared : (P,) array or None
        The vector of all ranks, where they have one.
    device : Device
        Where optimizer slots lie.
    """
    size, dtype = plan.model.size, plan.model.dtype
    nothing = plan.sparse and not plan.strategy.replicated  # is sent whole
    if shared is not None:
        params = shared
    else:
        params = world.buffer(0 if nothing else size, dtype)
        params = params if len(params) else np.empty(size, dtype)
    fill(params, np.asarray(plan.model.init(plan.seed) if plan.start is None else plan.start.params))
    slots = plan.optimizer.init(size, dtype, like=params)
    if plan.steps is not None:
        slots |= {name: device.put(array) for name, array in plan.steps.slots().items()}
    # Where servers have the optimizer's slots, nobody ever writes to these.
    replicated = strategy.replicated or plan.layout.servers > 0
    state = TrainState(params, slots, faults=plan.faults, replicated=replicated)
    items = 0 if nothing else buffer_items(plan) if plan.layout.servers else size + TAIL
    buffer = world.buffer(items, dtype)
    strategy.begin(params, slots)
    if plan.start is not None:
        state.resume(plan.start)
    state.optimizer, state.batch_size = plan.optimizer, plan.batch_size
    state.faults = tuple(fault for fault in plan.faults if fault.rank == world.rank)
    return state, buffer
