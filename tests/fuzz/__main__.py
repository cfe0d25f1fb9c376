"""``python -m tests.fuzz answers``: run a target with inputs from a coverage-guided fuzzer.

Further arguments are passed to libFuzzer.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=[
        "order_monitor.providers.znet.parser",
        "order_monitor.providers.http.response_head",
        "order_monitor.settings",
    ]
):
    from tests.fuzz.targets import SEEDS, TARGETS


def main() -> None:
    """Run one target until its time is up; a crash is stored as a file, and reported."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"which one? {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as corpus:
        for n, seed in enumerate(SEEDS[name]):
            (Path(corpus) / str(n)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], TARGETS[name])
        atheris.Fuzz()


main()
