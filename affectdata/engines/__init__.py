"""Engines run a function over batches (`workers.map_ordered`); each module here is one, named by --engine.

In: a picklable function, batches, a number of workers. Out: the results, in the order of the batches.
"""
