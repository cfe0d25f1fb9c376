"""The meaning of a refusal by the database, in one sentence that says what to do.

Only the SQLSTATE and object names are used. The driver's own text is never shown, because it may
contain a row and so a PIN.
"""

from __future__ import annotations

import re
from typing import Final

import asyncpg

_LATER: Final = "wait, it is tried again; if it stays so, look at the server's log"
_ADMIN: Final = "ask the server's administrator; its log says more"
_SHOPS_RULE: Final = (
    "see which trigger, function or constraint of the shop's raises it, and correct that or the row"
)
_CHECK: Final = "run order-monitor check; if that finds nothing, report it"
_LOGIN: Final = "correct database.dsn (user, password), or let this role in by pg_hba.conf"
_BUSY: Final = "see who holds it in pg_stat_activity and pg_locks, and end that or wait"
_COLUMN: Final = "run order-monitor check, which names the column"

_CODES: Final[dict[str, tuple[str, str]]] = {
    "0A000": (
        "it cannot do that with a table of this shape",
        "run order-monitor check, and set database.table to the plain table behind it",
    ),
    "22001": ("a value is longer than its column", "widen the column"),
    "23505": ("the value is there already", "find the other row; correct it or the rule"),
    "25006": (
        "the server or this session is read-only",
        "set database.dsn to the primary, with target_session_attrs",
    ),
    "28000": ("it does not let this role log in", _LOGIN),
    "28P01": ("the password is wrong", _LOGIN),
    "3D000": ("there is no such database", "correct the database's name in database.dsn"),
    "40001": ("another transaction changed the same rows at the same time", "try again"),
    "40P01": ("it met another transaction in a deadlock", "try again; see the server's log"),
    "42501": (
        "this role lacks a right",
        "run order-monitor check, which names the GRANT; only the table's owner may change its columns and indexes",
    ),
    "42703": (
        "a column is missing",
        "run order-monitor check; name it under [database.columns], or run order-monitor migrate",
    ),
    "42804": ("a column's type is not one that can be written", _COLUMN),
    "42809": (
        "that is no plain table (a view, or a part of another table)",
        "run order-monitor check, and set database.table to the table itself",
    ),
    "428C9": ("a column is always generated and cannot be written", _COLUMN),
    "42P01": (
        "a table is missing",
        "correct database.schema and database.table, or run order-monitor migrate",
    ),
    "53100": ("its disk is full", "make room on the server's disk"),
    "53300": (
        "it has no connection left",
        "raise max_connections, or lower database.pool_size here or elsewhere",
    ),
    "54000": (
        "its queue of notifications is full, or a trigger or view recurses",
        "see in pg_stat_activity which session listens and stays in a transaction, and end that; or correct the trigger or view",
    ),
    "55P03": ("a lock was not to be had in time", _BUSY),
    "57014": (
        "it took longer than allowed, or was cancelled",
        "see in pg_stat_activity what it waits for, or raise database.statement_timeout",
    ),
    "57P03": ("it is starting up", "wait until it is up, and try again"),
}
"""What a person can act on; all other codes have PostgreSQL's own name, and the advice of their class."""

_ADVICE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (_LATER, ("08", "25", "40", "57", "72")),
    (_ADMIN, ("53", "54", "58", "F0", "XX")),
    (_CHECK, ("0A", "26", "3F", "42", "55", "HV")),
    (_LOGIN, ("0P", "28")),
)
"""By the first two characters of a code; anything else is raised by the shop's own rules."""


OUTSIDE: Final[dict[str, str]] = {
    "timeout": "see that the server answers and the network lets it; a larger database.statement_timeout gives it longer",
    "ConnectionRefusedError": "see that the server runs, and that host and port in database.dsn are right",
    "gaierror": "correct the host in database.dsn, or mend the name service",
    "FileNotFoundError": "see that the server runs, and that the socket's folder or a file named in database.dsn is right",
    "PermissionError": "let this user read the socket or the file that database.dsn names",
    "NoTLS": "turn TLS on there (ssl = on), or set sslmode=prefer in database.dsn, which does without where there is none",
    "SSLError": "see sslmode and its certificates in database.dsn",
    "SSLCertVerificationError": "see sslrootcert in database.dsn, and the server's certificate",
}
"""What to do about failures that the server did not report, by the failure's name."""

_OUTSIDE_ELSE: Final = (
    "see that the server runs and is reached from here, and that database.dsn is right"
)


def sentence(state: str, names: list[str]) -> str:
    """Return a sentence on what an SQLSTATE means for ``names``, objects, and what to do."""
    what, remedy = _CODES.get(state) or (_name_of(state), _advice_on(state))
    return f"{', '.join([what, *names])} [{state}]; {remedy}"


def _name_of(state: str) -> str:
    """Return what PostgreSQL calls ``state``, as the driver knows it: none of a row's text is in it."""
    name = type(asyncpg.PostgresError.new({"C": state})).__name__.removesuffix("Error")
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*", name)
    known = name not in ("Postgres", "UnknownPostgres")
    return " ".join(words).lower() if known else "a code of its own was raised"


def _advice_on(state: str) -> str:
    return next((advice for advice, classes in _ADVICE if state[:2] in classes), _SHOPS_RULE)


def raised(state: str) -> str:
    """Return the sentence for an error that a function raised: its code says nothing more."""
    return f"a trigger or function of the shop's refused it [{state}]; {_SHOPS_RULE}"


def outside(kind: str, detail: str = "") -> str:
    """Return the sentence for a failure of this ``kind`` outside the server; ``detail`` is the
    system's.
    """
    return f"{kind}{f' ({detail})' if detail else ''}; {OUTSIDE.get(kind, _OUTSIDE_ELSE)}"
