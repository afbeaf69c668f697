"""Every claim about speed, measured as a ratio: both sides in one run, with the same data and threads."""
