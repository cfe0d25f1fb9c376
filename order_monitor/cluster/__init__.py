"""Several processes on one shop: which process asks which accounts.

A separate feature, switched on by ``cluster.enabled``.
"""
