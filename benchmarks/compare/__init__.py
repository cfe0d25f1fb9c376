"""Compares order-monitor with other ways to do its job, with the same orders, provider and database
on one machine.
"""
