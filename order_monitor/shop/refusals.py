"""What a refusal of the database means, in one sentence that says what to do.

Only the SQLSTATE and names of things are used. The driver's own text is never shown: it may hold a row, and with it a PIN.
"""

from __future__ import annotations

from typing import Final

_LATER: Final = "wait, it is tried again; if it stays so, look at the server's log"
_ADMIN: Final = "ask whoever runs the server, whose log says more"
_SHOPS_RULE: Final = "see which trigger, function or constraint of the shop's raises it, and correct that or the row"
_VALUE: Final = "see which column or trigger does not take it, and widen or correct that"
_LOOK: Final = "run order-monitor check"
_REPORT: Final = "run order-monitor check; if that finds nothing, report it"
_LOGIN: Final = "correct database.dsn (user, password), or let this role in by pg_hba.conf"
_BUSY: Final = "see who holds it in pg_stat_activity and pg_locks, and end that or wait"

_CODES: Final[dict[str, tuple[str, str]]] = {
    "0A000": (
        "it cannot do that with a table of this shape",
        "run order-monitor check, and set database.table to the plain table behind it",
    ),
    "22001": ("a value is longer than its column", "widen the column"),
    "22P05": ("its encoding lacks a character of a value", "use a database whose encoding is UTF8"),
    "23502": ("a column that may not be empty got no value", _SHOPS_RULE),
    "23503": ("a row that is referred to is missing", "see what the foreign key asks for, and add it or drop the key"),
    "23505": ("the value is there already, and may be there once only", "find the other row; correct it or the rule"),
    "23514": ("a check constraint or a domain does not allow the value", "correct the constraint or the row"),
    "25006": ("the server or this session is read-only", "set database.dsn to the primary, with target_session_attrs"),
    "25P02": ("an earlier statement of the transaction failed", _LATER),
    "25P03": ("the transaction stood idle for too long", "raise idle_in_transaction_session_timeout, and try again"),
    "25P04": ("the transaction took longer than transaction_timeout", "raise transaction_timeout for this role"),
    "28000": ("it does not let this role log in", _LOGIN),
    "28P01": ("the password is wrong", _LOGIN),
    "3D000": ("there is no such database", "correct the database's name in database.dsn"),
    "3F000": ("there is no such schema", "correct database.schema"),
    "40001": ("another transaction changed the same rows at the same time", "try again"),
    "40P01": (
        "it met another transaction in a deadlock",
        "try again; if it stays so, see in the server's log with whom",
    ),
    "40003": ("whether it was done is not known", "run it again: what is done is not done twice"),
    "42501": (
        "this role lacks a right",
        "run order-monitor check, which names the GRANT; only the table's owner may change its columns and indexes",
    ),
    "42601": ("a statement was not understood", _REPORT),
    "42703": (
        "a column is missing",
        "run order-monitor check; name it under [database.columns], or run order-monitor migrate",
    ),
    "42704": ("something is missing that the table or a trigger uses", "run order-monitor check"),
    "42710": ("something of that name is there already", "see what it is, and rename or drop it"),
    "42804": ("a column's type is not one that can be written", "run order-monitor check, which names the column"),
    "42809": (
        "that is no plain table (a view, or a part of another table)",
        "run order-monitor check, and set database.table to the table itself",
    ),
    "42883": ("a column's type lacks an operation that is needed", "run order-monitor check, which names the column"),
    "428C9": ("a column is always generated and cannot be written", "run order-monitor check, which names the column"),
    "42P01": ("a table is missing", "correct database.schema and database.table, or run order-monitor migrate"),
    "42P07": ("a table or index of that name is there already", "see what it is, and rename or drop it"),
    "42P17": ("a definition is not possible on this table", "run order-monitor check"),
    "53100": ("its disk is full", "make room on the server's disk"),
    "53200": ("it is out of memory", "give the server memory, or lower its work_mem"),
    "53300": ("it has no connection left", "raise max_connections, or lower database.pool_size here or elsewhere"),
    "53400": ("a limit of its configuration is reached", _ADMIN),
    "54000": (
        "a limit of the program's is passed, as where its queue of notifications is full or a trigger or a view recurses",
        "see in pg_stat_activity which session listens and stays in a transaction, and end that; or correct the trigger or view",
    ),
    "55000": (
        "the table is not in a state to be used so",
        "run order-monitor check; a materialized view must be filled",
    ),
    "55006": ("something is in use", _BUSY),
    "55P03": ("a lock was not to be had in time", _BUSY),
    "57014": (
        "it took longer than allowed, or was cancelled",
        "see in pg_stat_activity what it waits for, or raise database.statement_timeout",
    ),
    "57P01": ("it is being shut down, or somebody ended the connection", _LATER),
    "57P02": ("it crashed", "wait for it to start again, and look at its log"),
    "57P03": ("it is starting up", "wait until it is up, and try again"),
    "57P04": ("the database was dropped", "correct the database's name in database.dsn"),
    "57P05": ("the session stood idle for too long", "raise idle_session_timeout for this role"),
    "P0001": ("a function of the shop's refused it", _SHOPS_RULE),
    "XX001": ("it found damaged data", "stop writing, and restore from a backup with whoever runs the server"),
    "XX002": ("it found a damaged index", "rebuild the index: REINDEX"),
}

_CLASSES: Final[dict[str, tuple[str, str]]] = {
    "00": ("it said that all is well, where that was no answer", _REPORT),
    "01": ("a warning was raised as an error", _SHOPS_RULE),
    "02": ("there was no row where one was needed", _SHOPS_RULE),
    "03": ("a statement is not complete yet", _REPORT),
    "08": ("the connection broke", "see that the server and the network are up; it is tried again"),
    "09": ("a trigger failed", _SHOPS_RULE),
    "0A": ("it cannot do that", _REPORT),
    "0B": ("a transaction could not begin", _LATER),
    "0L": ("a right was granted by somebody who may not", "see who grants rights to this role, and correct it"),
    "0P": ("there is no such role", "correct database.dsn (user)"),
    "0F": ("a large object was used wrongly", _SHOPS_RULE),
    "0Z": ("a function asked for an error where there was none", _SHOPS_RULE),
    "10": ("a function of the shop's failed over XML", _SHOPS_RULE),
    "20": ("a CASE in a function of the shop's has no branch for the value", _SHOPS_RULE),
    "21": ("a function of the shop's got more rows than one", _SHOPS_RULE),
    "22": ("a value is not one that it can keep or reckon with", _VALUE),
    "23": ("a constraint does not allow the row", "correct the constraint or the row"),
    "24": ("a cursor was in the wrong state", _REPORT),
    "25": ("the transaction is not in a state for that", _LATER),
    "26": (
        "a prepared statement is missing",
        "let the pooler run in transaction or session mode, not in statement mode",
    ),
    "27": ("a trigger changed the row that was being changed", _SHOPS_RULE),
    "28": ("it does not let this role log in", _LOGIN),
    "2B": ("rights hang on what is to be dropped", "see in the server's log which, and revoke them"),
    "2D": ("a function ended a transaction where it may not", _SHOPS_RULE),
    "2F": ("a function of the shop's failed", _SHOPS_RULE),
    "34": ("there is no such cursor", _REPORT),
    "38": ("an outside function failed", _SHOPS_RULE),
    "39": ("an outside function was called wrongly", _SHOPS_RULE),
    "3B": ("a savepoint failed", _SHOPS_RULE),
    "3D": ("there is no such database", "correct the database's name in database.dsn"),
    "3F": ("there is no such schema", "correct database.schema"),
    "40": ("the transaction was rolled back", "try again"),
    "42": ("the table or this role's rights are not as they must be", _LOOK),
    "44": ("the view does not allow the row (WITH CHECK OPTION)", "set database.table to the table behind the view"),
    "53": ("it is out of something that it needs", _ADMIN),
    "54": ("a limit of the program's is passed", "see whether a trigger or a view recurses, and correct that"),
    "55": ("something is not in a state to be used so", _LOOK),
    "57": ("somebody stopped it", _LATER),
    "58": ("the system under it failed", _ADMIN),
    "72": ("a snapshot is too old", "try again"),
    "F0": ("its configuration is wrong", _ADMIN),
    "HV": ("a table elsewhere (a foreign one) failed", "set database.dsn to the database that holds the table itself"),
    "P0": ("a function of the shop's failed", _SHOPS_RULE),
    "XX": ("it failed inside", _ADMIN),
}

_OWN_CODE: Final = ("a code that is not PostgreSQL's own was raised", _SHOPS_RULE)

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
"""By the name of a failure that is not the server's word: what to do."""

_OUTSIDE_ELSE: Final = "see that the server runs and is reached from here, and that database.dsn is right"


def sentence(state: str, names: list[str]) -> str:
    """Say in one sentence what ``state``, an SQLSTATE, means and what to do; ``names`` are of what it concerns."""
    what, remedy = _CODES.get(state) or _CLASSES.get(state[:2]) or _OWN_CODE
    return f"{', '.join([what, *names])} [{state}]; {remedy}"


def raised(state: str) -> str:
    """Say it of an error that a function raised: then its code says nothing of the server, whatever it is."""
    return f"a trigger or function of the shop's refused it [{state}]; {_SHOPS_RULE}"


def outside(kind: str, detail: str = "") -> str:
    """Say the same of a failure that no server told: ``kind`` names it, ``detail`` is the system's word for it."""
    return f"{kind}{f' ({detail})' if detail else ''}; {OUTSIDE.get(kind, _OUTSIDE_ELSE)}"
