"""X and y of any kind become logical shards; a batch is a pure function of how many rows were consumed.

The client's side is in ``inputs`` and ``store``, a rank's side in ``shards`` and ``schedule``.
"""
