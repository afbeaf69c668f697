"""The strategies that every table of tests goes through: a new one is one line here."""

from scaleml.compression import Int8
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

STRATEGIES = [
    Serial(),
    AllReduce(),
    AllReduce(compression=Int8()),
    LocalSGD(4),
    Gossip(),
    Gossip(asynchronous=True),
    Hogwild(),
    ParameterServer(),
    ParameterServer(servers=2),
    ParameterServer(overlap=True),
    ParameterServer("bsp"),
    ParameterServer("ssp", staleness=2),
]

WAIT_FOR_NOBODY = [Gossip(asynchronous=True), Hogwild()]
"""Those whose messages travel while they compute, or that send none: a long way costs them nothing."""
