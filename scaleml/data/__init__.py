"""Data in three nouns: a Source (what a user has), its Pieces (what a worker keeps), Shards of these (what a rank reads).

``source`` and ``collection_source`` are what a user has, arrays here and Dask collections; ``collections`` pairs the partitions
of a collection, ``partition`` is the one pass over each of them: checked (``columns``, ``labels``), converted, shuffled and
written (``piece_file``) to a ``piece``. ``shard`` cuts pieces, once a run; ``stream`` reads them ahead; ``batches`` are a pure
function of the rows consumed so far (``schedule``). Nothing here knows of workers: that is ``scaleml.cluster.staging``.
"""
