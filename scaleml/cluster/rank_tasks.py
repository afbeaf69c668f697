"""The Dask tasks of a run's ranks: those of the generation that trains, and what those before it have left for whoever goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias, final

from distributed import Client, Future

from scaleml.cluster.errors import StartFailed
from scaleml.cluster.recovery import Points, Standings, WayOn, way_as_they_are, way_on
from scaleml.cluster.results import Result, gather_result
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.plan import Plan
from scaleml.runtime.rank_change import RankChange
from scaleml.strategies import Layout

Task: TypeAlias = "Future[Outcome | None]"


@final
class RankTasks:
    """The tasks of one run's ranks.

    Parameters
    ----------
    plan : Plan
        The first generation's.

    Attributes
    ----------
    current : list of Future
        Those of the ranks that train, in their order.
    former : list of Future
        Those of the ranks that have handed over to these, until these have entered.
    tried : list of int
        The recovery points from which ranks have gone on.
    """

    def __init__(self, plan: Plan) -> None:
        self.current: list[Task] = []
        self.former: list[Task] = []
        self.tried: list[int] = []
        self._former_plan = self._left_plan = plan
        self._former_at: Sequence[str] = ()
        self._survivors: dict[int, tuple[str, Task, Points]] = {}
        self._standings: Standings = {}
        self._left_number = 0

    def hand_over(self, plan: Plan, addresses: Sequence[str]) -> None:
        """Make room for the tasks of the ranks that go on; these ranks' plan was ``plan``, and what they leave lies there."""
        self.former, self.current = self.current, []
        self._former_plan, self._former_at = plan, addresses

    def handed(self, plan: Plan, change: RankChange | None = None, lost: Collection[str] = ()) -> dict[int, list[Task]]:
        """Return, for each rank of the next generation, of which tasks it needs the outcome: one that trained, and the servers.

        Raises
        ------
        StartFailed
            Where what is needed went with the ``lost`` workers.
        """
        if not self.former:
            return {}
        before = self._former_plan.layout.workers
        numbers = range(before) if change is None else change.former
        there = [rank for rank, at in enumerate(self._former_at) if at not in lost]
        if not there or there[0] >= before or any(rank not in there for rank in range(before, len(self.former))):
            raise StartFailed("what the ranks had handed over was lost with their workers")
        # All have left the same; one who stays is there for sure.
        any_one = next((was for was in numbers if was is not None and was in there), there[0])
        found = {}
        for rank in range(plan.layout.size):
            was = numbers[rank] if rank < len(numbers) else None
            found[rank] = [self.former[was if was in there else any_one], *self.former[before:]]
        return found

    def check_handed(self, lost: str) -> None:
        """Raise StartFailed where nobody can begin any more, for a server had handed over on this worker."""
        if self.former and lost in self._former_at[self._former_plan.layout.workers :]:
            raise StartFailed(f"what a server had handed over was lost with its worker {lost}, before others had it")

    def note_survivors(
        self,
        addresses: Mapping[int, str],
        points: Mapping[int, Points],
        plan: Plan,
        standings: Standings | None = None,
        number: int = 0,
    ) -> None:
        """Keep what suspended ranks of this plan and generation have left, in place of what earlier ones did."""
        self._left_number = number
        self._left_plan = plan
        self._standings = {rank: stands for rank, stands in (standings or {}).items() if stands}
        self._survivors = {
            rank: (address, self.current[rank], points[rank])
            for rank, address in addresses.items()
            if points[rank] or rank in self._standings
        }

    def adopt(self, number: int, left_at: Sequence[str | None], again: Callable[[int, int, str], Task]) -> None:
        """Take what ranks have left under new tasks, for the scheduler has forgotten the former ones.

        Parameters
        ----------
        number : int
            The generation that trained.
        left_at : sequence of str or None
            Where each of its ranks has left something.
        again : callable
            Makes the task: generation, rank, address.
        """
        if self.current:
            for rank, address in enumerate(left_at):
                if address is not None:
                    self.current[rank] = again(number, rank, address)
        for rank, (address, _, points) in self._survivors.items():
            self._survivors[rank] = address, again(self._left_number, rank, address), points

    def lose(self, address: str) -> None:
        """Note that a worker is gone, with all that lay there."""
        self._survivors = {rank: left for rank, left in self._survivors.items() if left[0] != address}

    def abandon(self) -> None:
        """Make room for the tasks of ranks that go on after a loss; of those before them, only what survivors have left is still wanted."""
        kept = [task for _, task, _ in self._survivors.values()]
        for task in self.current:
            if not any(task is one for one in kept):
                task.release()
        self.current = []

    @property
    def points(self) -> dict[int, Points]:
        """The recovery points that each survivor has kept."""
        return {rank: points for rank, (_, _, points) in self._survivors.items()}

    def way_on(self, layout: Layout) -> WayOn:
        """Return from where the ranks can go on."""
        standing = {rank: self._standings[rank] for rank in self._survivors if rank in self._standings}
        if standing:
            return way_as_they_are(standing, layout)
        return way_on(self.points, layout)

    def sources(self, way: WayOn) -> dict[int, list[Task]]:
        """Return, for each rank that goes on, whose outcome it needs."""
        return {rank: [self._survivors[source][1]] for rank, source in enumerate(way.sources) if source is not None}

    def settle(self) -> None:
        """Forget what others have left: all ranks have entered."""
        self.former = []
        self._survivors = {}

    def result(self, client: Client, ended: Mapping[int, str], plan: Plan) -> Result | None:
        """Return the parameters that ranks have left; of those who handed over, if the others did not get that far."""
        told = {rank: task for rank, task in enumerate(self.current) if ended.get(rank, "lost") != "lost"}
        left = {rank: task for rank, (_, task, _) in self._survivors.items()}
        former = dict(enumerate(self.former))
        generations = [(told, plan.partition), (left, self._left_plan.partition), (former, self._former_plan.partition)]
        return gather_result(client, generations)

    def take_all(self) -> list[Task]:
        """Return all tasks, which are forgotten here."""
        tasks = [*self.current, *self.former, *(task for _, task, _ in self._survivors.values())]
        self.current, self.former, self._survivors = [], [], {}
        return tasks
