"""What tests of stored data share."""

import os
from typing import Any

import numpy as np
import scipy.sparse

from scaleml import arrays, owned_files
from scaleml.data.piece import Piece, Run
from scaleml.data.piece_file import PieceFile
from scaleml.data.shard import Shard, cut_shards
from scaleml.data.source import ArraySource, array_source

RNG = np.random.default_rng(7)


def files(owner: int | None = None) -> list[str]:
    """The files of a process (default: this one) that lie anywhere on this host."""
    mine = f"-{os.getpid() if owner is None else owner}-"
    return [str(p) for folder in owned_files.folders() for p in folder.glob("scaleml-data-*") if mine in p.name]


def dense(n: int, features: int = 5, dtype: str = "f8") -> np.ndarray:
    return (RNG.standard_normal((n, features)) * 3).astype(dtype)


def sparse(n: int, features: int = 30) -> Any:
    x = scipy.sparse.random(n, features, 0.2, format="csr", random_state=3)
    x.data -= 0.5
    return x


def inputs(x: Any, y: Any, weights: Any = None, *, classifier: bool = False) -> ArraySource:
    return array_source(x, y, weights, classifier=classifier)


def written(data: ArraySource, rows: Any, dtype: str = "float32", shards: int = 1) -> tuple[PieceFile, list[Any]]:
    file = PieceFile(PieceFile.size(data, rows, dtype))
    return file, cut(file.write(data, rows, dtype), shards)


def cut(piece: Piece, shards: int) -> list[Shard]:
    return cut_shards([Run(piece, 0, piece.rows)], shards)


def joined(shards: list[Any]) -> tuple[Any, Any, Any]:
    """All shards one below the other, as this process maps them, copied out of the file."""
    parts = [shard.open() for shard in shards]
    x = np.concatenate([arrays.to_numpy(part[0]) for part in parts])
    weights = None if parts[0][2] is None else np.concatenate([part[2] for part in parts])
    return x, np.concatenate([part[1] for part in parts]), weights
