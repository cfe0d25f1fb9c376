"""Everything that reports: metrics, the health endpoint, the page, the webhook, messages to people,
systemd, traces, the log, and a dead man's switch. `app` wires these modules together.
"""
