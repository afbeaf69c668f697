"""Verdict: from runs in rounds to one sentence with its reasons and how sure it is.

Read in this order: `statistics` (numbers only), `series` (one contender's rounds, and which of them count), `claims` (who is faster
than whom), `judge` (the sentence) and `reasons` (what it rests on).
"""

from scaleml.telemetry.verdict.judge import judge
from scaleml.telemetry.verdict.verdict import Verdict

__all__ = ["Verdict", "judge"]
