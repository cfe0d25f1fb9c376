"""The contents of one run: orders and faults, all drawn from one seed, and simple enough to shorten
by hand.
"""

import random
from dataclasses import dataclass, replace

HOUR = 3600.0

WRONG = ("connect", "wavers", "cancels_all", "garbles")
PROVIDER = ("outage", "busy", "maintenance", "login", "refusing", "crossed", "slow", "cut")
DATABASE = ("db_down", "db_stall", "db_cut", "commit_lost", "commit_cut", "deadlocks")
SHOP = ("lock", "stale_save", "refund", "delete", "poison", "slow_trigger")
ANEW = ("resend", "resend_same", "reassign", "reassign_anew", "touch", "twins", "same_pin")
ACCOUNTS = ("switched_off", "removed", "password", "moved", "renamed")
PEOPLE = ("pause", "ask", "resolve", "reopen")
PROCESS = (
    "kill",
    "crash",
    "stop",
    "clock",
    "second",
    "once",
    "pair",
    "sighup",
    "receiver_down",
    "other_file",
)
KINDS = (*PROVIDER, *DATABASE, *SHOP, *ANEW, *ACCOUNTS, *PEOPLE, *PROCESS)
SPECIAL = (
    "fails_over",
    "refuses_all",
    "blocked",
    "rewrites",
    "pin_by_hand",
    "ended_by_shop",
    "release",
    "ends_paused",
    "connect",
    "wavers",
    "cancels_all",
    "cut_off",
    "recants",
    "garbles",
    "fails_over_ahead",
    "fails_over_far",
    "unsays",
    "resend_cancelled",
)
"""Faults that occur only in runs of one kind, see `tests.simulation.special`: drawn with the others
they would change all other runs.
"""

MONEY = (
    *ANEW,
    "pair",
    "crossed",
    "stale_save",
    "refund",
    "delete",
    "commit_lost",
    "second",
    "ask",
    "resolve",
    "reopen",
)
"""Settings that decide who owns a code, and when money moves."""

CONFIG = "default"
"""The account of a shop whose only account is in the settings."""


@dataclass(frozen=True)
class OrderPlan:
    """An order, and the provider's answers by time. Times are seconds from the start."""

    number: int
    sent_at: float
    account: str
    package: int
    ends_after: float | None
    outcome: str
    """``pin``, ``direct`` (no PIN), ``late`` (approved first, the PIN some minutes later),
    ``cancelled``.
    """
    unknown_for: float = 0.0
    """How long after sending the provider does not know it."""
    note: str = ""
    forgets: str = ""
    """What the provider always says instead of an answer: ``refused``, ``empty``, or ``broken`` (a
    status of 500).
    """
    above: int = 0
    """How many orders of other tenants end as it does."""
    is_claimed: bool = False
    """Whether a stranger's order says that it ends as this one does."""


@dataclass(frozen=True)
class Fault:
    """A fault at a time, for a while, at one party."""

    at: float
    kind: str
    seconds: float
    target: int
    size: float


def has_file(fault: Fault) -> dict[str, bool]:
    """Whether the file of a command has settings that differ, and whether it accepts others."""
    drawn = fault.target // 64
    return {"is_other": drawn % 8 == 0, "accepts": drawn % 16 == 0}


@dataclass(frozen=True)
class Scenario:
    """One run."""

    seed: int
    orders: tuple[OrderPlan, ...]
    faults: tuple[Fault, ...]
    accounts: tuple[str, ...] = ("a", "b")
    give_up_after: float = 24 * HOUR
    concurrency: int = 20
    per_second: float = 10.0
    webhook: bool = True
    last_sync: bool = False
    confirm_cancelled: float = 0.0
    many: bool = False
    """Whether full reads are rare, as with a very large number of orders."""
    hours: float = 1.0
    refresh: float = 60.0
    """How often the shop's accounts are read, in seconds."""
    learned: bool = False
    """Whether the timing is learned.

    With ``budget`` calls a second, None for as many as backoff would make.
    """
    budget: float | None = None
    primed: bool = False
    """Whether something was learned earlier."""
    crash_at: tuple[int, ...] = ()
    """The number of steps after which the first process dies, the second, and so on."""
    commits_at_death: bool | None = None
    """Whether the server executes a COMMIT in flight when a process dies; None for either."""
    one_login: bool = False
    """Whether the first two accounts share one dealer's login."""
    is_special: bool = False
    """Whether it is a run of one kind."""
    brake_hold: float = 0.0
    """Seconds for which a flood of cancellations is held; 0 for no brake."""
    give_up_unknown: bool = False
    is_first_start: bool = False
    """Whether the program starts on an old table."""
    cut_at: int = 0
    """The statement, counted from the start, at which the database connection is cut, once."""
    has_chains: bool = False
    """Whether other tenants' orders end as their children do."""
    members: int = 0
    """How many daemons share the accounts; 0 for one daemon that has them all."""
    in_turn: bool = False
    """Whether nothing but members that come and go decides when an order is asked about."""
    recheck: float = 0.0
    """How long after its end an order is asked about once more, in seconds; 0 for never."""


def draw(seed: int) -> Scenario:
    """Return the run for ``seed``."""
    chance = random.Random(seed)
    hours = chance.choice((0.5, 1.0, 2.0))
    accounts = ("a", "b", "c")[: chance.randint(1, 3)]
    orders = tuple(
        _order(chance, number, accounts, hours) for number in range(chance.randint(1, 24))
    )
    if (
        chance.random() < 0.2
    ):  # a campaign: all are sent within seconds, and their answers arrive together
        began = chance.uniform(0, hours * HOUR * 0.5)
        orders = tuple(replace(order, sent_at=began + 0.2 * order.number) for order in orders)
    weights = {kind: chance.random() ** 2 for kind in KINDS}
    if chance.random() < 0.4:  # repetition finds what a mixture hides
        only = chance.choice(KINDS)
        weights = {kind: float(kind == only) for kind in KINDS}
    count = chance.choice((0, 2, 5, 10, 20))
    more = random.Random(f"{seed} more")
    if more.random() < 0.15:
        accounts = (CONFIG,)
        orders = tuple(replace(order, account=CONFIG) for order in orders)
    faults = tuple(
        sorted((_fault(chance, weights, hours) for _ in range(count)), key=lambda fault: fault.at)
    )
    refresh = more.choice((20.0, 60.0, 300.0))
    if (
        more.random() < 0.06
    ):  # only a mistyped password, with no other fault: this shows how soon it is tried again
        faults = (
            Fault(
                hours * HOUR * 0.3,
                "password",
                400 + 300 * more.random(),
                more.randrange(1 << 16),
                0.5,
            ),
        )
        refresh = 20.0
    anew = random.Random(f"{seed} anew")
    if anew.random() < 0.25:  # settings that decide money, changed while orders are asked about
        faults = _of_money(anew, orders)
    named = random.Random(f"{seed} named")
    if named.random() < 0.04:  # an account is renamed, and paused under the new name
        key, began = named.randrange(1 << 16), hours * HOUR * 0.2
        faults = (
            Fault(began, "renamed", 1.0, key, 0.5),
            Fault(began + refresh + 100, "pause", 900.0, key, 0.5),
        )
    return _alone(
        seed,
        Scenario(
            seed,
            orders,
            faults,
            accounts,
            give_up_after=chance.choice((20 * 60.0, 2 * HOUR, 24 * HOUR)),
            concurrency=chance.choice((1, 3, 20)),
            per_second=chance.choice((0.5, 2.0, 10.0)),
            webhook=chance.random() < 0.6,
            last_sync=chance.random() < 0.5,
            confirm_cancelled=chance.choice((0.0, 0.0, 30.0)),
            many=chance.random() < 0.4,
            hours=hours,
            refresh=refresh,
            learned=more.random() < 0.2,
            budget=more.choice((None, 0.01, 0.2)),
            primed=more.random() < 0.7,
            one_login=more.random() < 0.3,
        ),
    )


def _alone(seed: int, scenario: Scenario) -> Scenario:
    """Sometimes use one fault and no other: a restart, for example, would repair the damage."""
    chance = random.Random(f"{seed} alone")
    orders, which = scenario.orders, chance.randrange(len(scenario.orders))
    order, kind = orders[which], chance.random()
    key = scenario.accounts.index(order.account)
    if kind < 0.02:  # an overloaded provider names an absurd time
        at = max(0.0, order.sent_at - 5)
        return replace(scenario, faults=(Fault(at, "busy", 60 + 60 * chance.random(), key, 0.9),))
    if kind < 0.04:  # the clock is set some minutes before an order becomes too old
        orders = tuple(replace(o, ends_after=None) if o is order else o for o in orders)
        limit, size = 20 * 60.0, chance.choice((0.2, 0.8))
        fault = Fault(
            max(100.0, order.sent_at + limit - 300 * chance.random()), "clock", 150.0, 0, size
        )
        return replace(scenario, orders=orders, faults=(fault,), give_up_after=limit)
    if (
        kind < 0.06
    ):  # the database is down as the first process starts, with orders that have already ended
        orders = tuple(replace(o, sent_at=-60.0, ends_after=30.0, unknown_for=0.0) for o in orders)
        fault = Fault(
            0.0,
            chance.choice(("db_stall", "db_cut")),
            90 * chance.random(),
            0,
            0.1 * chance.random(),
        )
        return replace(scenario, orders=orders, faults=(fault,), webhook=True)
    if kind < 0.08:  # clients are reopened repeatedly, while a provider answers slowly
        slow = Fault(max(0.0, order.sent_at), "slow", 600.0, key, 0.5)
        anew = (Fault(slow.at + 7.0 * n, "sighup", 1.0, n, 0.5) for n in range(1, 40))
        return replace(scenario, faults=(slow, *anew))
    return scenario


def _of_money(chance: random.Random, orders: tuple[OrderPlan, ...]) -> tuple[Fault, ...]:
    """Return faults of a few kinds, each while some order is asked about."""
    kinds = chance.sample(MONEY, 3)
    found = [
        replace(
            _fault(chance, {kind: float(kind in kinds) for kind in KINDS}, 0.0),
            at=max(0.0, chance.choice(orders).sent_at + chance.uniform(1, 300)),
        )
        for _ in range(chance.randint(2, 12))
    ]
    return tuple(sorted(found, key=lambda fault: fault.at))


def small(seed: int) -> Scenario:
    """Return the run for ``seed`` with a few orders and minutes, small enough to step through
    completely.
    """
    chance = random.Random(f"{seed} small")
    accounts = chance.choice(((CONFIG,), ("a",), ("a", "b")))
    orders = tuple(
        replace(
            _order(chance, number, accounts, 0.0),
            sent_at=20.0 * chance.random(),
            ends_after=90 * chance.random(),
        )
        for number in range(chance.randint(2, 4))
    )
    kinds = [
        kind
        for kind in KINDS
        if kind
        not in (
            "kill",
            "crash",
            "stop",
            "second",
            "other_file",
            "clock",
            "crossed",
            "pair",
            "delete",
            "refund",
        )
    ]
    faults = tuple(
        Fault(
            60 * chance.random(),
            chance.choice(kinds),
            5 + 20 * chance.random(),
            chance.randrange(1 << 16),
            chance.random(),
        )
        for _ in range(chance.randint(0, 2))
    )
    return Scenario(
        seed,
        orders,
        tuple(sorted(faults, key=lambda fault: fault.at)),
        accounts,
        give_up_after=20 * 60.0,
        webhook=chance.random() < 0.7,
        last_sync=chance.random() < 0.5,
        confirm_cancelled=chance.choice((0.0, 10.0)),
        many=chance.random() < 0.4,
        hours=0.02,
        refresh=chance.choice((60.0, 300.0)),
        learned=chance.random() < 0.2,
    )


def _order(
    chance: random.Random, number: int, accounts: tuple[str, ...], hours: float
) -> OrderPlan:
    outcome = chance.choices(("pin", "direct", "late", "cancelled"), (6, 2, 2, 3))[0]
    after = chance.choice((5.0, 40.0, 300.0, 2000.0)) * chance.random()
    return OrderPlan(
        number,
        sent_at=chance.uniform(-600, hours * HOUR * 0.8),
        account=chance.choice(accounts),
        package={"direct": 0}.get(outcome, chance.randint(1, 3)),
        ends_after=None if chance.random() < 0.1 else after,
        outcome=outcome,
        unknown_for=chance.choice((0.0, 0.0, 0.0, 20.0, 200.0)),
        note=chance.choice(("", "tamam", "Oyuncu bulunamad&#305;", "a | b")),
    )


def _fault(chance: random.Random, weights: dict[str, float], hours: float) -> Fault:
    kind = chance.choices(KINDS, [weights[kind] for kind in KINDS])[0]
    return Fault(
        at=chance.uniform(0, hours * HOUR),
        kind=kind,
        seconds=chance.choice((1.0, 10.0, 60.0, 600.0)) * (0.1 + chance.random()),
        target=chance.randrange(1 << 16),
        size=chance.random(),
    )
