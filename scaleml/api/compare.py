"""``compare``: strategies in turns on the same data and cluster, tuned alike, round after round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from uuid import uuid4

from distributed import Client

from scaleml.api.contenders import Contender, contender_of, with_all_cores, with_equal_chances
from scaleml.api.launch import prepare
from scaleml.api.named_settings import named_settings
from scaleml.api.rounds import Allowance, Runner, run_rounds, warm_up
from scaleml.api.run import Run
from scaleml.api.settings import Settings, check_target
from scaleml.api.trainable import EstimatorLike, Given, PipelineLike, Trainable, trainable
from scaleml.api.trial import Trial, trials_of
from scaleml.api.tuning import tune as tuned
from scaleml.api.validation import check_workers
from scaleml.callbacks.base import Callback
from scaleml.callbacks.followers import CallbackList
from scaleml.checks import check_integer, check_number
from scaleml.cluster.current_client import check_client
from scaleml.cluster.embedded import find_client
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.placement import Workers, range_of
from scaleml.cluster.secede import seceded
from scaleml.data.row_dtype import in_words
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import Optimizer
from scaleml.runtime.held_out_score import Scorer
from scaleml.strategies import Serial, Strategy
from scaleml.telemetry import Comparison
from scaleml.telemetry.environment import Environment
from scaleml.telemetry.formatting import listing
from scaleml.telemetry.progress import Progress


@named_settings()
@seceded()
def compare(
    model: Model | EstimatorLike | PipelineLike,
    X: object,
    y: object,
    strategies: Sequence[Strategy | Trial],
    *,
    target: float | None = None,
    optimizer: Optimizer | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    workers: Workers = None,
    client: Client | None = None,
    validation: object = 0.2,
    sample_weight: object = None,
    seed: int | None = None,
    faults: Sequence[Fault] | None = None,
    repeats: int | None = None,
    tune: int | None = None,
    budget: float | None = None,
    all_cores: bool = True,
    scoring: str | Scorer | None = None,
    microbatch: int | None = None,
    device: str = "auto",
    on_worker_lost: str = "replace",
    on_nonfinite: str = "raise",
    on_plan: Callable[[Sequence[str]], None] | None = None,
    on_run: Callable[[Run, int], None] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> Comparison:
    """Run strategies in turns on the same data and cluster, round after round, and say which one to use and how sure that is.

    Parameters
    ----------
    model, X, y, optimizer, epochs, batch_size, workers, client, sample_weight, scoring, microbatch, device, on_worker_lost, on_nonfinite
        As for ``train``; the best run's ``estimator`` is the fitted one.
    strategies : sequence of Strategy or Trial
        What to compare; a ``Trial`` gives a strategy its own settings.
    target : float, optional
        The held-out loss that counts. Default: the loss that all strategies reached and held.
    validation : (X, y) or float
        The held-out data, evaluated outside the training clock; default a fifth of the rows.
    seed : int
        Of the first round; every other round has one of its own, the same for all strategies: first parameters, the order of the
        rows, and which of them are held out. Dask collections keep their order and their held-out rows.
    faults : sequence of Fault, optional
        As for ``train``, in every run; faults of other ranks than 0 leave ``Serial()`` alone.
    repeats : int, optional
        Rounds, in each of which every strategy runs once, in an order that changes. Default: as many as fit into ``budget``.
        From one round nothing is claimed, and five are few.
    tune : int, optional
        First give every strategy so many trials on the same space of rates and rows an update, by successive halving; the winners
        then run in the rounds, on other seeds.
    budget : float, optional
        Seconds for all of it; at least one round is run. Default: 60, stretched to five rounds where a round takes less than that.
    all_cores : bool
        Whether ``Serial()`` is also run as one process with all the cores of a host; that is left out of the rounds where the
        warm-up shows that it cannot win.
    on_plan : callable, optional
        Called once, before the first run that counts, with the labels of what each round has.
    on_run : callable, optional
        Called with each run as it starts and the rows it will train on, for a live display; ``run.place`` says what it is for.
    callbacks : sequence of Callback
        Who is told of each run, in this process: see ``scaleml.callbacks``; ``run.label`` and ``run.place`` say which one it is.
    progress : bool, optional
        Whether to show how far it is. Default: in a notebook and in a terminal, unless ``on_run`` is given or a callback shows it;
        neither in pipes nor in threads.

    Returns
    -------
    Comparison
        ``runs``, ``table()``, ``verdict``, ``plot()``, ``to_html(path)``. A run that failed stands in it with its error. After
        Ctrl-C it holds the runs so far; a run that is stopped ends the comparison, too, unless it had reached the target or was
        skipped. ``ended`` says why runs are missing.

    Notes
    -----
    **Equal chances.** Settings are those of one update on ``batch_size`` rows. Where a strategy updates on fewer rows, as
    asynchronous and local ones do, its rate is scaled to them: linearly for SGD, by the square root for the others; a ``Trial``'s own
    optimizer is left alone, and so are strategies that average, for their mean moves as by one update of the whole batch. Where
    ``Serial()`` is among the strategies, it also runs with the rows an update and the rate of each of the others: the best of all
    of these is what scaling has to beat.

    **Rounds.** A short run of everything, which does not count, comes before the first. Times are compared within rounds: by the mean
    of their log ratios and Student's t; exactly, by signs, where a run missed the target. A headline is wrong in at most one
    of fifty (Holm's correction), and a claim needs a ratio above 1.05.

    **Reached** is a target at the first evaluation from which the loss is, on average over three, at or below it.

    Examples
    --------
    >>> import scaleml
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> scaleml.compare(scaleml.LinearModel(), X / 16, y, [scaleml.Serial(), scaleml.AllReduce()]).verdict  # doctest: +SKIP
    """
    trials = trials_of(strategies)
    check_target(target)
    allowance = _allowance(repeats, tune, budget, all_cores)
    told = CallbackList(callbacks)
    check_client(client)
    for each in (workers, *(trial.workers for trial in trials)):
        check_workers(each)
        if range_of(each) is not None:
            raise ValueError(
                f"workers={each!r}: what is compared runs on a fixed number; give one, or a Trial for each"
            )
    wanted = max(
        (each for each in (workers, *(trial.workers for trial in trials)) if isinstance(each, int)), default=workers
    )
    given = Given(
        *(X, y, sample_weight, validation),
        strategies=[trial.strategy for trial in trials],
        optimizers=[optimizer, *(trial.optimizer for trial in trials if trial.optimizer is not None)],
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        client=client,
        workers=wanted,
    )
    task = trainable(model, given)
    try:
        usual = _evaluated_often(
            task.settings(
                strategy=Serial(),
                optimizer=optimizer,
                epochs=epochs,
                batch_size=batch_size,
                faults=() if faults is None else faults,
                scoring=scoring,
                microbatch=microbatch,
                device=device,
                on_worker_lost=on_worker_lost,
                on_nonfinite=on_nonfinite,
            )
        )
        # All settings are checked before the first run: nobody should wait for an error in the last.
        found = task.given.workers if workers is None else workers
        contenders = [contender_of(trial, usual, found, usual.faults) for trial in trials]
    except BaseException:
        task.close()
        raise
    if progress is None and (on_run is not None or told.shows_progress):
        progress = False
    with Progress("compare", progress) as shown:

        def begun(run: Run, rows: int) -> None:
            shown.on_run(run, rows)
            if on_run is not None:
                on_run(run, rows)

        def planned(labels: Sequence[str]) -> None:
            shown.on_plan(labels)
            if on_plan is not None:
                on_plan(labels)

        wish = Wish(contenders, target, allowance, tune, all_cores, usual.seed, told)
        comparison = _run(task, wish, planned, begun)
    told.end_comparison(comparison)
    return comparison


class Wish(NamedTuple):
    """What is compared and how thoroughly."""

    contenders: list[Contender]
    target: float | None
    allowance: Allowance
    tune: int | None
    all_cores: bool
    seed: int
    callbacks: CallbackList


def _run(
    task: Trainable, wish: Wish, on_plan: Callable[[Sequence[str]], None], on_run: Callable[[Run, int], None]
) -> Comparison:
    """Bring the data to the workers, and run all stages; what was run is returned whatever ends them."""
    contenders = wish.contenders
    uses = [use for one in contenders for use in one.settings.uses]
    data = task.data(uses)
    runner: Runner | None = None
    environment: Environment | None = None
    notes: list[str] = []
    try:
        client, own = find_client(task.given.client, task.given.workers)
        signature = data.signature
        of = f"{signature.n_features:,} columns" if signature.row is None else in_words(signature.row)
        environment = Environment.now(f"{task.model!r} on {data.rows:,} rows of {of}")
        renew = partial(task.data, uses) if task.is_shuffled_anew else None
        runner = Runner(data, client, own, uuid4().hex[:8], wish.target, on_run, wish.callbacks, renew)
        for one in contenders:
            prepare(one.settings, data, client, own, one.workers)
        if wish.tune:
            contenders, said = tuned(runner, contenders, wish.tune, wish.allowance, wish.seed)
            notes += [] if said is None else [said]
        if not runner.ended:
            contenders = _completed(contenders, runner, wish.all_cores)
            notes += _measured(runner, contenders, wish, on_plan)
    except KeyboardInterrupt:
        if runner is None or not runner.runs:
            raise
        runner.ended = "The comparison was interrupted."
    except (StartFailed, OSError) as error:  # between two runs, of a client or cluster that is gone
        if runner is None or not runner.runs:
            raise
        runner.ended = f"The comparison ended early: {error}"
    finally:
        # Whatever ended the comparison also ends the run that was under way.
        if runner is not None and runner.runs and not runner.runs[-1].over:
            runner.runs[-1].stop()
        (data if runner is None else runner.data).close()
    return Comparison(runner.runs, wish.target, runner.ended, notes, environment, runner.a_round)


def _completed(contenders: list[Contender], runner: Runner, all_cores: bool) -> list[Contender]:
    """Return the contenders with rates for the rows of their updates, and with all the baselines that they have to beat."""

    def workers_of(one: Contender) -> int:
        _, placement = prepare(one.settings, runner.data, runner.client, runner.own_cluster, one.workers)
        return placement.layout.workers

    fair = with_equal_chances(contenders, workers_of, runner.data.rows)
    return with_all_cores(fair, runner.client) if all_cores else fair


def _measured(
    runner: Runner, contenders: list[Contender], wish: Wish, on_plan: Callable[[Sequence[str]], None]
) -> list[str]:
    """Run the warm-up and the rounds; return what is to be said of them. One round alone has no warm-up."""
    chosen = list(range(len(contenders)))
    if wish.allowance.repeats != 1:
        chosen = warm_up(runner, contenders)
        if runner.ended == "stopped":
            runner.ended = "The comparison was stopped in its warm-up: no round was run."
        if runner.ended:
            return []
    on_plan([contenders[entry].label for entry in chosen])
    said = run_rounds(runner, contenders, chosen, wish.allowance, wish.seed)
    cut = [one.label for entry, one in enumerate(contenders) if entry not in chosen]
    few = len(cut) == 1
    out = f"{'was' if few else 'were'} left out after the warm-up: {'it' if few else 'they'} cannot win"
    notes = [f"{listing(cut)} {out}."] if cut else []
    return notes if said is None else [*notes, said]


def _allowance(repeats: int | None, tune: int | None, budget: float | None, all_cores: bool) -> Allowance:
    if repeats is not None:
        check_integer(
            "repeats",
            repeats,
            1,
            rule="a positive integer, the rounds to run, or None for as many as the budget allows",
        )
    if not isinstance(all_cores, bool):
        raise TypeError(
            f"all_cores={all_cores!r}: must be True or False, whether Serial() also runs with all the cores of a host"
        )
    if tune is not None:
        check_integer(
            "tune",
            tune,
            1,
            35,
            rule="an integer from 1 to 35, the settings that every strategy tries, or None for no tuning",
        )
    if budget is not None:
        check_number(
            "budget", budget, 0, open_low=True, rule="a positive number, the seconds that all of it may take, or None"
        )
    return Allowance(repeats, budget)


def _evaluated_often(settings: Settings) -> Settings:
    """Evaluate about twenty times a run: a time to the target needs that."""
    return replace(settings, evaluations_an_epoch=-(-20 // settings.epochs))
