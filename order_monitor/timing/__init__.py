"""Learned timing: learns from answers when orders end, and decides from that when to ask.

An optional feature, enabled by ``schedule.strategy``.
"""
