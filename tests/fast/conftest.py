"""Only ``make fast`` collects these: they need uvloop, which the other tests do without."""

import os

collect_ignore_glob = [] if os.environ.get("FAST") else ["test_*.py"]
