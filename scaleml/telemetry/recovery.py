"""Recovery: how long a run was away after a loss, phase by phase, beside what the cluster alone needs for its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scaleml.escaping import escape
from scaleml.telemetry.formatting import seconds as spoken

PHASES: Final = {
    "noticed": ("noticed", "from the last sign of life of who was lost to the first sign of the loss", "#D55E00"),
    "stopped": ("others stopped", "until the other ranks had left what they keep", "#CC79A7"),
    "worker": ("worker there", "until the cluster had a worker in its place", "#7F7F7F"),
    "data": ("rows back", "until its rows lay where it can read them", "#56B4E9"),
    "started": ("ranks started", "until all ranks had entered again", "#E69F00"),
    "replayed": ("steps again", "until the first step that nobody had taken before", "#009E73"),
}
"""What a recovery consists of, in its order: a name, what it is, a colour."""
_CLUSTER: Final = ("noticed", "worker", "data")
_MOST: Final = 5  # of recoveries that are drawn


@dataclass(frozen=True)
class Recovery:
    """One return of a run from a loss.

    Parameters
    ----------
    time : float
        When it went on, in seconds of the training clock.
    what : str
        Who was replaced, or left out, in words.
    lost_at : int
        The step that the ranks had come to.
    goes_on_from : int
        The step that they go on from; -1: the beginning.
    phases : mapping of str to float
        The seconds of each of `PHASES` that is over.
    """

    time: float
    what: str
    lost_at: int
    goes_on_from: int
    phases: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """From the last sign of life to the first new step."""
        return sum(self.phases.values())

    @property
    def floor(self) -> float:
        """The part that the cluster itself needs: to notice, to have a worker again, to have the rows again."""
        return sum(self.phases.get(phase, 0.0) for phase in _CLUSTER)

    @property
    def steps_again(self) -> int:
        """The steps that are taken a second time."""
        return max(0, self.lost_at - max(0, self.goes_on_from))

    @property
    def is_over(self) -> bool:
        """Whether a step was taken that nobody had taken before."""
        return "replayed" in self.phases

    @property
    def sentence(self) -> str:
        """What was lost, how long it took, and what of it.

        Examples
        --------
        >>> Recovery(2.0, "rank 1 replaced", 512, 480, {"noticed": 0.1, "worker": 0.4, "started": 0.2, "replayed": 0.1}).sentence
        'rank 1 replaced: first new step after 800 ms, of which the cluster needs 500 ms; 32 steps taken again'
        """
        again = f"{self.steps_again} step{'s' * (self.steps_again != 1)} taken again"
        what = "first new step" if self.is_over else "ranks went on"
        cluster = f"of which the cluster needs {spoken(self.floor)}"
        return f"{self.what}: {what} after {spoken(self.seconds)}, {cluster}; {again}"

    def _repr_html_(self) -> str:
        return recovery_fragment([self])


def recovery_lines(recoveries: Sequence[Recovery]) -> list[str]:
    """Return each recovery in a line, with the seconds of its phases."""
    return [f"{one.sentence} ({_phases(one)})" for one in recoveries]


def _phases(one: Recovery) -> str:
    return ", ".join(f"{name} {spoken(one.phases[key])}" for key, (name, _, _) in PHASES.items() if key in one.phases)


def recovery_fragment(recoveries: Sequence[Recovery]) -> str:
    """Draw the newest recoveries as bars below each other, on one scale; inline styles only; empty where there is none."""
    shown = recoveries[-_MOST:]
    if not shown:
        return ""
    longest = max(one.seconds for one in shown) or 1.0
    left = len(recoveries) - len(shown)
    head = f"Recoveries{f', the last {len(shown)} of {len(recoveries)}' if left else ''}"
    return (
        f'<div class="scaleml-recovery" style="font-size:0.9em;margin:0.4em 0"><strong>{head}</strong>'
        + "".join(_bar(one, longest) for one in shown)
        + _key(shown)
        + "</div>"
    )


def _bar(one: Recovery, longest: float) -> str:
    parts = "".join(
        f'<span title="{escape(f"{name} {spoken(one.phases[key])}: {what}")}" style="display:inline-block;height:100%;'
        f'width:{100 * one.phases[key] / longest:.2f}%;background:{color}"></span>'
        for key, (name, what, color) in PHASES.items()
        if one.phases.get(key, 0.0) > 0
    )
    floor = (
        f'<div title="{escape(f"what the cluster itself needs: {spoken(one.floor)}")}" style="height:3px;margin-top:1px;'
        f'width:{100 * one.floor / longest:.2f}%;background:currentColor;opacity:0.6"></div>'
    )
    bar = f'<div style="height:14px;white-space:nowrap;font-size:0;line-height:0">{parts}</div>{floor}'
    return f'<div style="margin-top:0.35em">{escape(one.sentence)}</div><div style="max-width:40em;margin-top:2px">{bar}</div>'


def _key(shown: Sequence[Recovery]) -> str:
    seen = {key for one in shown for key in one.phases}
    words = [
        f'<span style="white-space:nowrap;margin-right:1em" title="{escape(what)}"><span style="display:inline-block;width:0.8em;'
        f'height:0.8em;background:{color};margin-right:0.3em"></span>{escape(name)}{_of(shown, key)}</span>'
        for key, (name, what, color) in PHASES.items()
        if key in seen
    ]
    line = (
        '<span style="display:inline-block;width:1.2em;height:3px;background:currentColor;opacity:0.6;'
        'margin-right:0.3em;vertical-align:middle"></span>'
    )
    words.append(f'<span style="white-space:nowrap">{line}what the cluster itself needs</span>')
    return f'<div style="margin-top:0.4em;opacity:0.85">{"".join(words)}</div>'


def _of(shown: Sequence[Recovery], key: str) -> str:
    return f" {spoken(shown[0].phases[key])}" if len(shown) == 1 else ""
