"""The command's entry: reachable by a signal before anything heavy is loaded."""

import os
import signal
import sys


def _leave(number: int, _: object) -> None:
    """Nothing is under way yet, so nothing has to be finished."""
    os._exit(0 if number == signal.SIGTERM else 128 + number)


def main() -> None:
    """Run the command line."""
    # As process 1 of a container SIGTERM would be ignored until somebody handles it.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    from order_monitor.commands.main import cli  # noqa: PLC0415 - the signals come first

    sys.exit(cli())


if __name__ == "__main__":
    main()
