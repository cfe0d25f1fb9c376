"""Domain logic: orders, answers, schedules, gates and decisions. Pure, with no other dependencies.

Does no I/O, uses no library, and reads no clock or random source of its own. Begin with `order`,
`answer`, `schedule` and `decision`; `check_result` carries an answer to its row.
"""
