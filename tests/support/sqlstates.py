"""PostgreSQL's codes of errors."""

import asyncpg

KNOWN = [
    getattr(error, "sqlstate", None)
    for error in vars(asyncpg.exceptions).values()
    if isinstance(error, type)
]
CODES = sorted({code for code in KNOWN if code})
"""Every code of PostgreSQL's appendix A, as the driver knows them."""
