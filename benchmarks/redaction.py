"""The cost of redacting secrets from a log line: ``python -m benchmarks.redaction``.

The same lines with one account and with 30,000, whose passwords changed three times within the
hour: a line of our own, one with a provider's message, and one with external text that names no
account. Compare the ratios; the microseconds depend on this machine.
"""

from __future__ import annotations

import gc
import io
import sys
import time
from statistics import median
from typing import Any, Final

import structlog

from order_monitor.tell.logs import set_up

ACCOUNTS: Final = 30_000
LINES: Final = 300
ROUNDS: Final = 7

SAID: Final = "the panel says: bayi no 1234 bulunamadi, islem 55555 iptal edildi, tekrar deneyiniz"
KINDS: Final[dict[str, dict[str, Any]]] = {
    "our own words": {
        "order_id": "3f9c12aa-7f3a-4b1c-9e0d-1f2e3d4c5b6a",
        "account": "shop0",
        "outcome": "waiting",
    },
    "what a provider said": {
        "order_id": "3f9c12aa-7f3a-4b1c-9e0d-1f2e3d4c5b6a",
        "account": "shop0",
        "said": SAID,
    },
    "text that names no account": {"why": SAID},
}


def main() -> None:
    """Measure, and print a table."""
    one, many = costs(1), costs(ACCOUNTS)
    sys.stdout.write(f"{'a line':<30}{'1 account':>12}{f'{ACCOUNTS:,}':>12}{'ratio':>8}\n")
    for kind in KINDS:
        ratio = many[kind] / one[kind]
        sys.stdout.write(
            f"{kind:<30}{one[kind] * 1e6:>9.0f} us{many[kind] * 1e6:>9.0f} us{ratio:>8.2f}\n"
        )


def costs(accounts: int) -> dict[str, float]:
    """Return the median processor seconds that each kind of line costs its caller."""
    sink, redact = set_up("debug", "json", io.TextIOWrapper(io.BytesIO(), "utf-8"), {})
    for rotation in range(4):
        redact.follow(
            {f"shop{n}": (f"bayi{n:06}", f"p@ss {rotation} {n:06}") for n in range(accounts)}
        )
    # As the daemon does after it has read the accounts: the collector does not walk them again.
    gc.collect()
    gc.freeze()
    log = structlog.get_logger("benchmark")
    found = {
        kind: median(_seconds(log, fields) for _ in range(ROUNDS)) for kind, fields in KINDS.items()
    }
    sink.close()
    return found


def _seconds(log: Any, fields: dict[str, Any]) -> float:  # noqa: ANN401 - structlog's
    began = time.thread_time()
    for _ in range(LINES):
        log.warning("order.refused", **fields)
    return (time.thread_time() - began) / LINES


if __name__ == "__main__":
    main()
