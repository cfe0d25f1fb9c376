"""Which due order goes first when more is due than the ceiling allows."""

from __future__ import annotations


def precedence(due: float, chance: float, patience: float) -> float:
    """Return the key by which due orders of an account are taken, the least first; it never changes while an order waits.

    Asking one second sooner saves ``chance`` seconds of delay on average, where that is the probability that the order has ended
    meanwhile: so of orders due together the likelier goes first. Nothing starves: the key is at most ``due + patience``, so an
    order is overtaken only by those due less than ``patience`` seconds after it.
    """
    return due + patience * (1 - min(1.0, max(0.0, chance)))
