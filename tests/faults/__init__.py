"""Real faults: the real process, a real PostgreSQL, real HTTP.

``make faults``, since they take minutes of real time.
"""
