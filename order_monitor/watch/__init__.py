"""The loop, and the path of an order through it.

`discovery` finds an order, `dispatcher` chooses it when it is due, `asker` asks the provider,
`answer_handler` interprets the answer, `write_queue` writes, `result_handler` processes the result.
`engine` combines these six, `lifecycle` starts, drains and ends them.
"""
