"""Who is told: Prometheus, the health probe, the page, the shop's webhook, systemd, traces, the log, a dead man's switch.

May be touched from outside: each is taken up by the composition of the commands. May call: watch, shop, providers, core.
"""
