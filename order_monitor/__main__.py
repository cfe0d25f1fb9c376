"""The command's entry: reachable by a signal before anything heavy is loaded."""

import os
import signal
import sys


def _leave(number: int, _: object) -> None:
    """Nothing is under way yet, so nothing has to be finished."""
    os._exit(0 if number == signal.SIGTERM else 128 + number)


def _open_streams() -> None:
    """Give a closed stdout or stderr somewhere to go (``2>&-``): Python leaves None there, and a
    socket would take its number.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, open(number, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for the process's whole life


def main() -> None:
    """Run the command line."""
    # As process 1 of a container SIGTERM would be ignored until somebody handles it.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    _open_streams()
    from order_monitor.tell.streams import guard, settle  # noqa: PLC0415 - the signals come first

    guard()
    from order_monitor.commands.cli import cli  # noqa: PLC0415

    sys.exit(settle(cli()))


if __name__ == "__main__":
    main()
