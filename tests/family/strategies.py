"""The strategies that every table of tests goes through: a new one is one line here."""

from scaleml.strategies import AllReduce, LocalSGD, ParameterServer, Serial

STRATEGIES = [
    Serial(),
    AllReduce(),
    LocalSGD(4),
    ParameterServer(),
    ParameterServer(servers=2),
    ParameterServer("bsp"),
    ParameterServer("ssp", staleness=2),
]
