"""The engine's fixtures: real worker processes, ranks on threads, dense and sparse data."""

from engine.conftest import cluster, one_blas_thread, storage, train

__all__ = ["cluster", "one_blas_thread", "storage", "train"]
