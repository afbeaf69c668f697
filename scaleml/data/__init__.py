"""Data in three nouns: a Source (what a user has), its Pieces (what a worker keeps), Shards of these (what a rank reads).

``training_set`` makes sources of all that a user passes, training and validation data: ``source`` of arrays here, ``collection_source``
of Dask collections, whose partitions ``collections`` pairs. A ``stager``, given by whoever knows the workers, brings their rows into files.
``partition`` is the one pass over each partition: checked (``columns``, ``labels``), converted, shuffled and written (``piece_file``)
to a ``piece``. ``shard`` cuts pieces, once a run; ``stream`` reads them ahead; ``batches`` are a pure function of the rows consumed
so far (``schedule``). Nothing here knows of workers: that is ``scaleml.cluster.staging``.
"""
