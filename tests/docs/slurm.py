"""The two commands of SLURM that dask-jobqueue calls, for one machine: a job begins at once, here."""

from pathlib import Path

SBATCH = """#!/bin/bash
# sbatch <script>: check what SLURM would read of it, and run it in a session of its own.
set -eu
for directive in -J "-p normal" "-A ml" "-n 1" --cpus-per-task=1 --mem=4G -t; do
  grep -q -- "^#SBATCH $directive" "$1" || { echo "sbatch: no $directive in the script" >&2; exit 1; }
done
cp "$1" "$HOME/job.$$"
setsid bash "$HOME/job.$$" >"$HOME/job.$$.log" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
# scancel <job>
kill -- "-$1"
"""


def install(folder: Path) -> Path:
    """Put the commands into a folder and return it, for PATH."""
    folder.mkdir()
    for name, script in {"sbatch": SBATCH, "scancel": SCANCEL}.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder
