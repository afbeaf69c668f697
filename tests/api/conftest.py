"""The clusters and the problem of the cluster's tests, for what users call."""

from cluster.conftest import client, cluster, embedded, poll_fixture, problem, threads, users_cluster_only

__all__ = ["client", "cluster", "embedded", "poll_fixture", "problem", "threads", "users_cluster_only"]
