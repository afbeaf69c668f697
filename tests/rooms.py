"""Who may import whom, the design's section 3 as tables: `test_architecture` holds every import of the package against them."""

BOTTOM = frozenset({"arrays", "checks", "clock", "devices", "escaping", "owned_files", "representation"})
GROUND = BOTTOM | {"faults", "telemetry"}
TOOLS = GROUND | {"models", "optim", "compression", "comm", "data"}
WORKS = TOOLS | {"strategies", "checkpoint"}
RUNS = WORKS | {"runtime", "cluster", "callbacks", "api"}

# A room is a top-level module or folder of the package. It may import itself and what stands beside it here.
ROOMS: dict[str, frozenset[str]] = {
    "arrays": frozenset(),
    "checks": frozenset(),
    "clock": frozenset(),
    "devices": frozenset({"arrays"}),
    "escaping": frozenset(),
    "owned_files": frozenset(),
    "representation": frozenset(),
    "faults": BOTTOM,
    "telemetry": BOTTOM,
    "models": GROUND,
    "optim": GROUND,
    "comm": GROUND,
    "compression": GROUND | {"comm"},
    "data": GROUND,
    "frameworks": GROUND | {"models", "comm"},
    "datasets": BOTTOM,
    "checkpoint": BOTTOM,
    "callbacks": GROUND - {"faults"},
    "strategies": TOOLS - {"data"},
    "runtime": WORKS,
    "cluster": WORKS | {"runtime", "frameworks"},
    "api": WORKS | {"runtime", "cluster", "callbacks", "frameworks"},
    "estimators": RUNS,
    "linear_model": RUNS | {"estimators"},
    "neural_network": RUNS | {"estimators"},
    "lab": RUNS | {"datasets", "frameworks"},
    "__main__": RUNS | {"datasets", "frameworks", "lab"},
    "__init__": RUNS | {"datasets", "frameworks", "lab", "linear_model", "neural_network"},
}

# Rooms that use the package as anybody does: through ``import scaleml``.
USERS = frozenset({"__main__"})

# Third-party and standard modules that only some rooms may import...
ONLY_IN: dict[str, frozenset[str]] = {
    "time": frozenset({"clock"}),
    "distributed": frozenset({"cluster", "api"}),
    "dask": frozenset({"cluster", "api", "data", "estimators", "linear_model", "neural_network"}),
    "cupy": frozenset({"arrays"}),
    "cupyx": frozenset({"arrays"}),
    **dict.fromkeys(("torch", "jax", "keras"), frozenset({"frameworks"})),
    "ipywidgets": frozenset({"lab"}),
    "bqplot": frozenset({"lab"}),
    "IPython": frozenset({"lab", "telemetry"}),
    "rich": frozenset({"telemetry", "api", "__main__"}),
    "matplotlib": frozenset({"telemetry", "api", "lab"}),
}
# ... and those that a room must do without, whatever else it may.
WITHOUT: dict[str, frozenset[str]] = {
    "strategies": frozenset(
        {"threading", "socket", "asyncio", "concurrent", "multiprocessing", "select", "subprocess", "datetime"}
    ),
    "frameworks": frozenset({"socket", "asyncio", "multiprocessing"}),
    "models": frozenset({"threading", "socket", "asyncio", "multiprocessing"}),
    "optim": frozenset({"threading", "socket", "asyncio", "multiprocessing"}),
    "comm": frozenset({"pickle", "cloudpickle", "dill", "marshal", "shelve", "asyncio"}),  # never unpickle
    "checkpoint": frozenset({"pickle", "cloudpickle", "dill", "marshal", "shelve", "asyncio", "socket"}),
    "runtime": frozenset({"pickle", "cloudpickle", "dill", "marshal", "shelve", "asyncio", "socket"}),
}
