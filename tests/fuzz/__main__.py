"""``python -m tests.fuzz answers``: feed a target what a coverage-guided fuzzer makes up; further arguments are libFuzzer's."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["order_monitor.providers.znet_parser", "order_monitor.providers.response_head", "order_monitor.settings"]
):
    from tests.fuzz.targets import SEEDS, TARGETS


def main() -> None:
    """Run one target until its time is up; a crash is kept as a file, and told."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"which one? {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as corpus:
        for n, seed in enumerate(SEEDS[name]):
            (Path(corpus) / str(n)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], TARGETS[name])
        atheris.Fuzz()


main()
