"""Glossary: what the words of ledgers and tables mean, in a sentence, for whoever rests the mouse on one."""

from __future__ import annotations

from typing import Final

WORDS: Final = {
    "compute": "Time in which the rank computed gradients.",
    "wait": "Time in which it waited for a slower rank, at a step that all take together.",
    "comm": "Time in which gradients or parameters travelled: sending, receiving and summing.",
    "apply": "Time in which the optimizer changed the parameters.",
    "other": "The rest of the wall time: reading batches, commands, bookkeeping. The five parts add up to it.",
    "rank": "One worker's part in a run, by number; servers hold parameters and train nothing.",
    "workers": "Ranks that train, one a Dask worker.",
    "threads": "Threads of linear algebra in each rank.",
    "loss": "The held-out loss at the end: of rows that were not trained on.",
    "score": "Of the held-out rows at the end: accuracy, or R2 of a regression.",
    "time": "Training time: from the first step, without evaluations and pauses.",
    "cold": "The time from nothing: with placing the data and starting the ranks.",
    "to target": "Training time until the held-out loss reached the target.",
    "samples/s": "Rows of data that all ranks together consumed a second.",
    "speed-up": "How many times as fast to the target as the baseline, the best Serial() run.",
    "rows/update": "Rows of data behind one update of the parameters.",
    "rate": "The learning rate that it ran with.",
    "rounds": "How often it ran; times and losses are medians of its rounds.",
    "95%": "The interval that holds the true speed-up with 95% confidence; one that includes 1 shows no difference.",
    "efficiency": "The speed-up over the number of workers: 100% is as good as it gets.",
    "bytes/step": "What one rank sends in one step.",
    "staleness": "Updates between the parameters that a gradient was computed on and its use, on average; 0 is in step.",
    "samples": "Rows of data that the rank has consumed.",
    "updates": "Steps in which the rank took part.",
}
"""By word, as it stands in the head of a column or beside a bar."""
