"""Runs of one kind each, drawn separately: they show what a mixture of faults hides or repairs."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tests.simulation.scenario import HOUR, Fault, OrderPlan, Scenario, draw

DAY = 24 * HOUR
EVERY = 3
"""One seed in this many has a special run in addition to its own, one a `joined` run, and one a
`further` one.
"""

Maker = Callable[[int, random.Random], Scenario]

SIZES = (2, 3, 5, 9, 17, 33, 60, 120, 250, 500)
"""Numbers of orders that end together when a batch is refused: the largest are drawn rarely."""

ODD = ("refused", "empty", "broken")


def drawn(seed: int) -> tuple[Scenario, ...]:
    """Return all runs for ``seed``."""
    match seed % EVERY:
        case 0:
            return (draw(seed), special(seed))
        case 1:
            return (draw(seed), joined(seed))
    return (draw(seed), further(seed))


def special(seed: int) -> Scenario:
    """Return the run of one kind for ``seed``."""
    return _one_of(MAKERS, seed, random.Random(f"{seed} special"))


def joined(seed: int) -> Scenario:
    """Return the run for ``seed`` in which orders, processes or people are in one another's way."""
    return _one_of(JOINED, seed, random.Random(f"{seed} joined"))


def further(seed: int) -> Scenario:
    """Return the run for ``seed`` in which an account, an answer, a clock, or an order does not stay
    what it was.
    """
    return _one_of(FURTHER, seed, random.Random(f"{seed} further"))


def _one_of(makers: Sequence[Maker], seed: int, chance: random.Random) -> Scenario:
    scenario = makers[chance.randrange(len(makers))](seed, chance)
    return replace(
        scenario, is_special=True, last_sync=chance.random() < 0.3, webhook=chance.random() < 0.6
    )


def _plan(
    chance: random.Random, number: int, account: str, outcome: str, **more: float | str | None
) -> OrderPlan:
    package = 0 if outcome == "direct" else chance.randint(1, 3)
    plan = OrderPlan(number, 0.0, account, package, None, outcome)
    return replace(plan, **more)  # type: ignore[arg-type]


def _orders(
    chance: random.Random,
    accounts: Sequence[str],
    outcomes: Sequence[str],
    count: int,
    **drawn: Callable[[], float | None],
) -> tuple[OrderPlan, ...]:
    """Plan orders, each with the values that ``drawn`` return, by the names of `OrderPlan`."""
    return tuple(
        _plan(
            chance,
            number,
            chance.choice(accounts),
            chance.choice(outcomes),
            **{name: value() for name, value in drawn.items()},
        )
        for number in range(count)
    )


def _faults(
    chance: random.Random,
    kinds: Sequence[str],
    count: int,
    *,
    since: float,
    within: float,
    lasts: Sequence[float] = (),
) -> list[Fault]:
    """Draw faults that begin ``within`` so many seconds after ``since``, for one of ``lasts``."""
    return [
        Fault(
            since + within * chance.random(),
            chance.choice(kinds),
            chance.choice(lasts) if lasts else 1.0,
            chance.randrange(1 << 16),
            chance.random(),
        )
        for _ in range(count)
    ]


def _in_order(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _accounts(chance: random.Random, most: int = 2) -> tuple[str, ...]:
    return ("a", "b", "c")[: chance.randint(1, most)]


def refused_batches(seed: int, chance: random.Random) -> Scenario:
    """A large number of orders ends while the database is down.

    When it is back, triggers and locks block some of them for a while.
    """
    size = SIZES[min(chance.randrange(len(SIZES)), chance.randrange(len(SIZES)))]
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "cancelled"),
        size,
        sent_at=lambda: 18 * chance.random(),
        ends_after=lambda: 70.0,
    )
    kinds = ("poison", "rewrites", "rewrites", "lock", "slow_trigger", "blocked")
    away = Fault(85.0, "db_down", 40 + 60 * chance.random(), 0, 0.5)
    against = (
        Fault(
            84.0,
            chance.choice(kinds),
            away.seconds + 60 * (1 + chance.random()),
            chance.randrange(1 << 16),
            0.7,
        )
        for _ in range(chance.randint(1, 3))
    )
    return Scenario(
        seed, orders, (*against, away), accounts, concurrency=60, per_second=100.0, hours=0.1
    )


def by_hand(seed: int, chance: random.Random) -> Scenario:
    """The shop ends orders, and adds PINs to them, while they are asked about and while a late PIN
    is awaited.
    """
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "late", "late", "cancelled", "cancelled"),
        chance.randint(8, 20),
        sent_at=lambda: 600 * chance.random(),
        ends_after=lambda: 30 + 200 * chance.random(),
    )
    kinds = ("pin_by_hand", "pin_by_hand", "ended_by_shop")
    faults = _faults(chance, kinds, chance.randint(4, 16), since=0, within=1000)
    ordered = _in_order(faults)
    return Scenario(seed, orders, ordered, accounts, hours=0.3)


def _flood(
    seed: int, chance: random.Random, plans: list[OrderPlan], faults: tuple[Fault, ...]
) -> Scenario:
    """The provider has completed some orders before, and others continue.

    Then it cancels a large number.
    """
    accounts = ("a", "b")
    before = [
        _plan(chance, 0, chance.choice(accounts), "pin", ends_after=30.0)
        for _ in range(chance.randint(4, 12))
    ]
    meanwhile = [
        _plan(
            chance,
            0,
            chance.choice(accounts),
            "pin",
            sent_at=600 + 3000 * chance.random(),
            ends_after=900.0,
            note="m",
        )
        for _ in range(12)
    ]
    orders = tuple(replace(plan, number=n) for n, plan in enumerate([*before, *plans, *meanwhile]))
    return Scenario(
        seed,
        orders,
        faults,
        accounts,
        one_login=True,
        brake_hold=chance.choice((900.0, 1800.0, HOUR)),
        hours=1.2,
        refresh=20.0,
    )


def out_of_stock(seed: int, chance: random.Random) -> Scenario:
    """It cancels them correctly, within some minutes."""
    count, spread = chance.choice((10, 13, 16, 19, 40)), chance.choice((5.0, 200.0))
    plans = [
        _plan(
            chance, 0, account, "cancelled", sent_at=300 + spread * chance.random(), ends_after=50.0
        )
        for account in ("a", "b")
        for _ in range(count)
    ]
    return _flood(seed, chance, plans, _disturbed(chance))


def cancels_all(seed: int, chance: random.Random) -> Scenario:
    """It says so of every order, or of every older one, through a fault, for a while."""
    plans = [
        _plan(
            chance,
            0,
            account,
            chance.choice(("pin", "pin", "cancelled")),
            sent_at=300 * chance.random(),
            ends_after=at,
        )
        for account in ("a", "b")
        for at in [chance.choice((5000.0, 9000.0, None))] * chance.choice((12, 16, 30))
    ]
    lasts = chance.choice((300.0, 1500.0, 4000.0))
    are_new_ones_right = chance.random() < 0.4
    until = 590.0 if are_new_ones_right else math.inf
    faults = tuple(Fault(500.0, "cancels_all", lasts, target, until) for target in (0, 1))
    scenario = _flood(seed, chance, plans, (*faults, *_disturbed(chance)))
    if not are_new_ones_right:
        return scenario
    # None of them is completed while the provider is wrong: none can serve as a control.
    later = (
        replace(plan, ends_after=5000.0) if plan.note == "m" else plan for plan in scenario.orders
    )
    return replace(scenario, orders=tuple(later))


def _disturbed(chance: random.Random) -> tuple[Fault, ...]:
    """Sometimes another fault occurs as well, or a person releases the held orders."""
    if chance.random() < 0.6:
        return ()
    kinds = (
        "second",
        "kill",
        "stop",
        "once",
        "db_down",
        "commit_lost",
        "outage",
        "release",
        "release",
        "crash",
    )
    faults = (
        Fault(
            300 + 3000 * chance.random(),
            chance.choice(kinds),
            120 * chance.random(),
            chance.randrange(9),
            0.4,
        )
        for _ in range(chance.randint(1, 4))
    )
    return _in_order(faults)


def not_known(seed: int, chance: random.Random) -> Scenario:
    """The provider does not know some of the orders, and never will: it never accepted them."""
    accounts = _accounts(chance)
    kinds = ODD if chance.random() < 0.3 else (chance.choice(ODD),)
    odd = [
        _plan(
            chance,
            0,
            chance.choice(accounts),
            "pin",
            sent_at=900 * chance.random(),
            forgets=chance.choice(kinds),
        )
        for _ in range(chance.choice((1, 3, 6, 12, 25)))
    ]
    # If all others ended long ago, nothing shows that the account still knows any order.
    is_lonely = chance.random() < 0.4
    good = [
        _plan(
            chance,
            0,
            chance.choice(accounts),
            chance.choice(("pin", "direct", "cancelled")),
            sent_at=(500 if is_lonely else 3000) * chance.random(),
            ends_after=chance.choice((40.0, 400.0) if is_lonely else (40.0, 400.0, 2000.0)),
        )
        for _ in range(chance.randint(4, 15))
    ]
    orders = [*odd, *good]
    chance.shuffle(orders)
    disturbed = _disturbed(chance) if chance.random() < 0.5 else ()
    return Scenario(
        seed,
        tuple(replace(plan, number=n) for n, plan in enumerate(orders)),
        tuple(fault for fault in disturbed if fault.kind != "release"),
        accounts,
        give_up_after=2 * HOUR if is_lonely else chance.choice((20 * 60.0, 24 * HOUR)),
        give_up_unknown=chance.random() < 0.5,
        hours=1.0,
    )


def first_start(seed: int, chance: random.Random) -> Scenario:
    """The program starts on a table with last winter's orders, which look open."""
    accounts = _accounts(chance)
    ages = (30 * DAY, 7 * DAY + 60, 7 * DAY - HOUR, 3 * DAY, 2 * HOUR, 1500.0, 60.0)
    old = [
        _plan(
            chance,
            0,
            chance.choice(accounts),
            chance.choice(("pin", "cancelled", "direct")),
            sent_at=-chance.choice(ages),
            ends_after=None if chance.random() < 0.6 else 45 * DAY * chance.random(),
        )
        for _ in range(chance.randint(4, 25))
    ]
    fresh = [
        _plan(
            chance,
            0,
            chance.choice(accounts),
            "pin",
            sent_at=1000 * chance.random(),
            ends_after=chance.choice((60.0, None)),
        )
        for _ in range(4)
    ]
    return Scenario(
        seed,
        tuple(replace(plan, number=n) for n, plan in enumerate([*old, *fresh])),
        (),
        accounts,
        give_up_after=chance.choice((20 * 60.0, HOUR)),
        is_first_start=True,
        hours=0.5,
    )


def asked_twice(seed: int, chance: random.Random) -> Scenario:
    """Connections fail, and each question takes two requests, while more is due than the pace
    allows.
    """
    orders = tuple(
        _plan(chance, number, "a", "pin", sent_at=60 * chance.random(), ends_after=2000.0)
        for number in range(60)
    )
    faults = (Fault(10.0, "connect", 900.0, 0, 0.5),)
    per_second = chance.choice((0.5, 1.0))
    return Scenario(
        seed,
        orders,
        faults,
        ("a",),
        per_second=per_second,
        concurrency=chance.choice((1, 5)),
        hours=0.4,
    )


def wavers(seed: int, chance: random.Random) -> Scenario:
    """The provider says that an order is cancelled, and a moment later that it waits.

    Processes come and go meanwhile.
    """
    orders = tuple(
        _plan(
            chance,
            number,
            "a",
            chance.choice(("pin", "cancelled", "cancelled")),
            sent_at=900 * chance.random(),
            ends_after=chance.choice((60.0, 300.0, 1500.0)),
        )
        for number in range(chance.randint(6, 16))
    )
    kinds = ("kill", "stop", "kill", "ends_paused") if chance.random() < 0.7 else ()
    again = [
        Fault(200.0 + 80 * n, chance.choice(kinds), 20 * chance.random(), n, 0.5)
        for n in range(20)
        if kinds
    ]
    faults = (Fault(100.0, "wavers", 1200.0, 0, 0.5), *again)
    confirm = chance.choice((30.0, 120.0, 300.0))
    return Scenario(seed, orders, faults, ("a",), confirm_cancelled=confirm, hours=0.5)


def all_refused(seed: int, chance: random.Random) -> Scenario:
    """The database refuses every write for some minutes, while orders end."""
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "direct", "cancelled"),
        chance.choice((1, 2, 3, 4, 8, 30)),
        sent_at=lambda: 60 * chance.random(),
        ends_after=lambda: chance.choice((60.0, 200.0)) * chance.random(),
    )
    fault = Fault(70.0, "refuses_all", 60 + 900 * chance.random(), 0, 0.5)
    return Scenario(seed, orders, (fault,), accounts, hours=0.3)


def fails_over(seed: int, chance: random.Random) -> Scenario:
    """The database fails over repeatedly just after orders have ended, and loses its last
    commits.
    """
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "late", "cancelled"),
        chance.randint(4, 20),
        sent_at=lambda: 900 * chance.random(),
        ends_after=lambda: 400 * chance.random(),
    )
    kinds = ("fails_over", "fails_over", "fails_over", "kill", "resolve", "reopen", "receiver_down")
    faults = (
        Fault(
            100 + 1200 * chance.random(),
            chance.choice(kinds),
            1 + 30 * chance.random(),
            n,
            chance.random(),
        )
        for n in range(chance.randint(2, 8))
    )
    ordered = _in_order(faults)
    return Scenario(seed, orders, ordered, accounts, hours=0.4, refresh=20.0)


def chains(seed: int, chance: random.Random) -> Scenario:
    """Other tenants took some orders: theirs end as their children do."""
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "late", "cancelled"),
        chance.randint(3, 12),
        sent_at=lambda: 600 * chance.random(),
        ends_after=lambda: chance.choice((30.0, 200.0, 900.0)) * (0.5 + chance.random()),
        above=lambda: chance.choice((0, 1, 1, 2, 4)),
        is_claimed=lambda: chance.random() < 0.2,
    )
    orders = tuple(
        replace(plan, ends_after=None) if chance.random() < 0.1 else plan for plan in orders
    )
    kinds = IN_CHAINS if chance.random() < 0.5 else (chance.choice(IN_CHAINS),)
    faults = _faults(
        chance, kinds, chance.choice((0, 1, 3, 8)), since=30, within=1200, lasts=(1.0, 30.0, 200.0)
    )
    ordered = _in_order(faults)
    return Scenario(
        seed,
        orders,
        ordered,
        accounts,
        give_up_after=chance.choice((20 * 60.0, 2 * HOUR)),
        confirm_cancelled=chance.choice((0.0, 0.0, 30.0)),
        hours=0.4,
        refresh=20.0,
        has_chains=True,
    )


IN_CHAINS = (
    *("second", "kill", "stop", "once", "crash"),
    *("db_down", "db_cut", "commit_lost", "commit_cut", "deadlocks"),
    *("lock", "poison", "rewrites", "blocked", "refuses_all"),
    *("resolve", "ask", "ends_paused", "outage", "receiver_down"),
)
"""The faults that occur with chains."""


def posted_again(seed: int, chance: random.Random) -> Scenario:
    """People reopen orders while events wait for their receiver, and have events posted again."""
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "direct", "cancelled", "cancelled", "cancelled"),
        chance.randint(2, 8),
        sent_at=lambda: 200 * chance.random(),
        ends_after=lambda: 20 + 200 * chance.random(),
    )
    away = [
        Fault(100 + 200 * chance.random(), "receiver_down", 100 * (1 + chance.random()), 0, 0.5)
        for _ in range(2)
    ]
    kinds = ("reopen", "replay", "replay", "kill", "commit_lost")
    by_people = _faults(chance, kinds, chance.randint(3, 12), since=90, within=400)
    ordered = _in_order((*away, *by_people))
    return Scenario(seed, orders, ordered, accounts, hours=0.2, refresh=20.0)


def shared(seed: int, chance: random.Random) -> Scenario:
    """Several daemons share the accounts, and come and go."""
    accounts = ("a", "b", "c")[: chance.randint(2, 3)]
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "late", "cancelled"),
        chance.randint(4, 12),
        sent_at=lambda: 300 * chance.random(),
        ends_after=lambda: chance.choice((30.0, 100.0, 300.0)) * (0.5 + chance.random()),
        above=lambda: chance.choice((0, 0, 1)),
    )
    kinds = AMONG_MEMBERS if chance.random() < 0.5 else (chance.choice(AMONG_MEMBERS),)
    faults = _faults(
        chance, kinds, chance.choice((0, 2, 6)), since=30, within=400, lasts=(5.0, 20.0, 60.0)
    )
    ordered = _in_order(faults)
    return Scenario(
        seed,
        orders,
        ordered,
        accounts,
        give_up_after=chance.choice((20 * 60.0, 2 * HOUR)),
        confirm_cancelled=chance.choice((0.0, 0.0, 30.0)),
        per_second=chance.choice((0.5, 10.0)),
        many=chance.random() < 0.4,
        hours=0.2,
        refresh=chance.choice((20.0, 60.0)),
        one_login=chance.random() < 0.3,
        has_chains=chance.random() < 0.5,
        members=chance.choice((2, 2, 3)),
    )


AMONG_MEMBERS = (
    *("freeze", "session_cut", "session_ended", "second", "second", "kill", "stop", "crash"),
    *("db_down", "db_stall", "fails_over", "commit_lost", "once", "outage", "slow", "pause"),
    *("password", "switched_off", "renamed", "sighup", "receiver_down", "clock"),
)
"""The faults that occur in a cluster."""


def handed_over(seed: int, chance: random.Random) -> Scenario:
    """Members come and go while orders wait, and after they have ended."""
    accounts = ("a", "b", "c")
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "cancelled"),
        chance.randint(3, 7),
        sent_at=lambda: 60 * chance.random(),
        ends_after=lambda: chance.choice((30.0, 150.0, 250.0)) * (0.5 + chance.random()),
    )
    kinds = ("kill", "kill", "stop", "second", "session_ended", "recants", "pause")
    faults = _faults(
        chance, kinds, chance.randint(2, 4), since=100, within=250, lasts=(20.0, 60.0, 120.0)
    )
    return _passed_on(seed, chance, orders, faults, accounts)


def cut_off(seed: int, chance: random.Random) -> Scenario:
    """One member, or all, cannot reach a provider for some minutes."""
    accounts = ("a", "b")
    orders = _orders(
        chance,
        accounts,
        ("pin", "direct", "cancelled"),
        chance.randint(4, 8),
        sent_at=lambda: 60 * chance.random(),
        ends_after=lambda: chance.choice((100.0, 250.0)) * (0.5 + chance.random()),
    )
    faults = _faults(chance, ("cut_off",), 1, since=90, within=60, lasts=(120.0, 200.0))
    return _passed_on(seed, chance, orders, faults, accounts)


def _passed_on(
    seed: int,
    chance: random.Random,
    orders: tuple[OrderPlan, ...],
    faults: Iterable[Fault],
    accounts: tuple[str, ...],
) -> Scenario:
    return Scenario(
        seed,
        orders,
        _in_order(faults),
        accounts,
        many=chance.random() < 0.4,
        hours=0.1,
        one_login=chance.random() < 0.3,
        members=chance.choice((2, 2, 3)),
        in_turn=True,
        recheck=60.0,
    )


def garbled(seed: int, chance: random.Random) -> Scenario:
    """For some minutes answers are cut, mixed up, or hold no code in the PIN's place."""
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "cancelled", "late"),
        chance.randint(6, 16),
        sent_at=lambda: 300 * chance.random(),
        ends_after=lambda: chance.choice((30.0, 200.0, 600.0)) * (0.5 + chance.random()),
    )
    faults = _faults(chance, ("garbles",), len(accounts), since=30, within=60, lasts=(300.0, 900.0))
    return Scenario(seed, orders, _in_order(faults), accounts, hours=0.3, refresh=20.0)


def cancelled_again(seed: int, chance: random.Random) -> Scenario:
    """The shop sends orders again that the provider has just cancelled, and it cancels them again."""
    accounts = ("a", "b")
    orders = _orders(
        chance,
        accounts,
        ("cancelled", "cancelled", "pin"),
        chance.randint(3, 8),
        sent_at=lambda: 300 * chance.random(),
        ends_after=lambda: 20 + 100 * chance.random(),
    )
    # The outcome of what is sent again is "cancelled".
    again = [
        Fault(at, "resend_cancelled", 1.0, 6 + 8 * chance.randrange(99), chance.random())
        for at in (60 + 400 * chance.random() for _ in range(chance.randint(3, 8)))
    ]
    confirm = chance.choice((60.0, 120.0, 300.0))
    return Scenario(
        seed, orders, _in_order(again), accounts, confirm_cancelled=confirm, hours=0.3, refresh=20.0
    )


def clock_moves(seed: int, chance: random.Random) -> Scenario:
    """The database fails over to a server whose clock is another, and loses its last commits, while
    people act.
    """
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "cancelled"),
        chance.randint(4, 12),
        sent_at=lambda: 500 * chance.random(),
        ends_after=lambda: chance.choice((60.0, 400.0, 2000.0)) * (0.5 + chance.random()),
    )
    kinds = ("resolve", "reopen", "ask", "pause", "replay", "once", "kill")
    by_people = _faults(
        chance, kinds, chance.randint(2, 6), since=60, within=800, lasts=(20.0, 90.0)
    )
    over = _faults(
        chance,
        ("fails_over_ahead",),
        chance.randint(1, 2),
        since=100,
        within=600,
        lasts=(2.0, 30.0),
    )
    return Scenario(
        seed,
        orders,
        _in_order((*by_people, *over)),
        accounts,
        give_up_after=20 * 60.0,
        confirm_cancelled=chance.choice((0.0, 30.0)),
        hours=0.4,
        refresh=20.0,
    )


def clock_leaps(seed: int, chance: random.Random) -> Scenario:
    """The database fails over to a server whose clock is wrong by hours or months, while events
    wait for their receiver.
    """
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "direct", "late", "cancelled"),
        chance.randint(4, 12),
        sent_at=lambda: 500 * chance.random(),
        ends_after=lambda: chance.choice((60.0, 400.0)) * (0.5 + chance.random()),
    )
    away = [
        Fault(100 + 300 * chance.random(), "receiver_down", 100 * (1 + chance.random()), 0, 0.5)
        for _ in range(2)
    ]
    kinds = ("kill", "kill", "replay", "resolve", "reopen")
    others = _faults(chance, kinds, chance.choice((0, 1, 3)), since=300, within=600)
    over = _faults(
        chance,
        ("fails_over_far",),
        chance.choice((1, 1, 2)),
        since=150,
        within=400,
        lasts=(2.0, 30.0),
    )
    return Scenario(
        seed,
        orders,
        _in_order((*away, *others, *over)),
        accounts,
        give_up_after=chance.choice((20 * 60.0, 24 * HOUR)),
        hours=0.4,
        refresh=20.0,
    )


def not_written(seed: int, chance: random.Random) -> Scenario:
    """PINs are read that cannot be written, as the database refuses the row or another order has
    the same reference; then the orders end in another way, or get old.
    """
    accounts = _accounts(chance)
    orders = _orders(
        chance,
        accounts,
        ("pin", "pin", "pin", "cancelled"),
        chance.randint(2, 6),
        sent_at=lambda: 60 * chance.random(),
        ends_after=lambda: 60 + 200 * chance.random(),
    )
    is_refused = chance.random() < 0.5
    why = (
        [Fault(50.0, "refuses_all", 400 + 400 * chance.random(), 0, 0.5)]
        if is_refused
        else [Fault(70.0 + n, "twins", 1.0, chance.randrange(99), 0.4) for n in range(3)]
    )
    unsaid = [Fault(350.0, "unsays", 1.0, 0, 0.5)] if chance.random() < 0.5 else []
    ends = _faults(chance, ("resolve",), chance.randint(2, 8), since=200, within=600)
    faults = _in_order((*why, *unsaid, *ends[: len(ends) if unsaid == [] else 1]))
    return Scenario(
        seed, orders, faults, accounts, give_up_after=20 * 60.0, hours=0.4, refresh=20.0
    )


MAKERS: tuple[Maker, ...] = (
    refused_batches,
    by_hand,
    out_of_stock,
    cancels_all,
    not_known,
    first_start,
    asked_twice,
    wavers,
    all_refused,
    fails_over,
)

JOINED: tuple[Maker, ...] = (chains, shared, posted_again)

FURTHER: tuple[Maker, ...] = (
    handed_over,
    cut_off,
    garbled,
    clock_moves,
    cancelled_again,
    clock_leaps,
    not_written,
)
