"""What is shipped, run: the built image, and the units in a booted systemd.

``make image`` and ``make boot``; both need root.
"""
