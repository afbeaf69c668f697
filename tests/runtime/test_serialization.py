"""Commands, strategies and faults as names and fields: what comes back, and what is refused."""

import pytest

from scaleml.compression import TopK
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe, optimizer_from, rebuild
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer, Serial


@pytest.mark.parametrize(
    "strategy", [AllReduce(compression=TopK(0.25)), LocalSGD(3), ParameterServer(servers=3)], ids=repr
)
def test_strategies_travel_with_what_is_in_them(strategy):
    command = Command.decode(Command(1, "update", {"strategy": describe(strategy)}).encode())
    assert rebuild(command.settings["strategy"]) == strategy


def test_nothing_but_our_own_classes_is_rebuilt():
    class Mine:
        pass

    with pytest.raises(ValueError, match="scaleml's own"):
        describe(Mine())
    for package, name in [
        ("runtime", "Plan"),
        ("strategies", "base"),
        ("strategies", "__builtins__"),
        ("optim", "clip"),
    ]:
        with pytest.raises(ValueError, match="rebuilt by name"):
            rebuild({"package": package, "name": name, "fields": {}})
    with pytest.raises(ValueError, match="is no optimizer"):
        optimizer_from(describe(Serial()))
    for data in (b'{"number": 1, "verb": "obey"}', b'{"number": 1, "verb": "stop", "more": 2}', b"{}", b"stop"):
        with pytest.raises(ValueError, match=r"command|Expecting value"):
            Command.decode(data)
