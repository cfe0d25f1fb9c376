"""People are told: over a real database and real services, in virtual time."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog

from order_monitor.app import alerter_of
from order_monitor.settings.loading import load
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.notices import NAME, NoticeStore
from order_monitor.shop.schema.table_config import SETTINGS
from order_monitor.tell.alerter import LOOK, Alerter
from order_monitor.tell.attention import REMEDIES, Cause, causes_in, urgent_causes_of
from order_monitor.tell.document import document_of
from order_monitor.tell.messages import Messages
from order_monitor.tell.page import LANGUAGES
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.services import NoLibraryError, services_of
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.mailbox import TOKEN, Mailbox, mailbox
from tests.support.shops import NOW, Shop

STUCK = Cause("stuck", 2)
CLOSED = Cause("closed", 1, 3)


@pytest.fixture
async def box() -> AsyncIterator[Mailbox]:
    async with mailbox() as made:
        yield made


@pytest.fixture
async def database(plain_shop: Shop) -> AsyncIterator[Database]:
    made = Database(parse_dsn(plain_shop.dsn))
    yield made
    await made.close()


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


class Bench:
    """Processes that share a shop, and the clock of all."""

    def __init__(
        self, database: Database, *urls: str, language: str = "en", daily_at: int | None = None
    ) -> None:
        self.database = database
        self.urls = urls
        self.clock = ManualClock()
        self.messages = Messages(language, "shop-1")
        self.daily_at = daily_at
        self.redactor = Redactor()

    def alerter(self, me: str = "a") -> Alerter:
        services = services_of(self.urls, timeout=5.0)
        row = NoticeStore(self.database, "public")
        return Alerter(row, services, self.messages, self.clock, me, self.daily_at, self.redactor)

    async def run(
        self, seconds: float, *alerters: Alerter, causes: list[Cause], waiting: int = 7
    ) -> None:
        """Let each look as often as it does, all at once."""
        for _ in range(round(seconds / LOOK)):
            self.clock.elapsed += LOOK
            await asyncio.gather(*(one.notify_of(causes, waiting) for one in alerters))


async def test_what_begins_is_told_once_after_a_restart_too_and_so_is_its_end(
    database: Database, box: Mailbox
) -> None:
    bench = Bench(database, box.url)
    first = bench.alerter("a")
    await bench.run(60, first, causes=[STUCK, CLOSED])
    kind, title, text = box.got[0]
    assert (len(box.got), kind) == (1, "warning")
    assert title == "order-monitor (shop-1): Running, but somebody should look"
    assert text.splitlines() == ["Orders stuck: 2", "Accounts closed: 1 of 3"]
    second = bench.alerter("b")
    await bench.run(60, second, causes=[STUCK, CLOSED])
    await bench.run(60, second, causes=[])
    assert len(box.got) == 1, "nothing again, and no end before it has lasted"
    await bench.run(4000, second, causes=[STUCK])
    assert box.texts[1:] == ["Over: Accounts closed: 1 of 3\nStill: Orders stuck: 2"]
    await bench.run(400, second, causes=[])
    assert box.got[2:] == [
        ("success", "order-monitor (shop-1): All is well", "Over: Orders stuck: 2")
    ]


@pytest.mark.parametrize("kind", ["reviews", "dead", "stuck"])
async def test_after_some_were_settled_more_are_news_again(
    database: Database, box: Mailbox, kind: str
) -> None:
    """Each is a matter of its own: many that were once told must not hide those that come later.
    What comes and goes by itself is reported only where it is worse.
    """
    bench = Bench(database, box.url)
    first = bench.alerter("a")
    await bench.run(60, first, causes=[Cause(kind, 50)])
    await bench.run(60, first, causes=[Cause(kind, 1)])
    second = bench.alerter("b")
    await bench.run(4000, second, causes=[Cause(kind, 1)])
    assert len(box.got) == 1
    await bench.run(60, second, causes=[Cause(kind, 2)])
    assert len(box.got) == (1 if kind == "stuck" else 2)


async def test_what_lasts_for_a_moment_is_no_news(database: Database, box: Mailbox) -> None:
    bench = Bench(database, box.url)
    alerter = bench.alerter()
    for _ in range(5):
        await bench.run(LOOK, alerter, causes=[CLOSED])
        await bench.run(LOOK, alerter, causes=[])
    await bench.run(20, alerter, causes=[Cause("not_ready", why="no scan for 60 s")])
    await bench.run(
        600,
        alerter,
        causes=[Cause("clocks", why="this machine has been up for less than ten minutes")],
    )
    assert box.got == []


async def test_two_processes_send_each_message_once(database: Database, box: Mailbox) -> None:
    bench = Bench(database, box.url, daily_at=0)
    pair = [bench.alerter("a"), bench.alerter("b")]
    await bench.run(300, *pair, causes=[STUCK])
    await bench.run(400, *pair, causes=[])
    assert sorted(box.texts) == sorted(
        ["0 completed, 0 failed, 7 waiting.", "Orders stuck: 2", "Over: Orders stuck: 2"],
    )


async def test_what_one_process_sees_the_other_does_not_take_for_over(
    database: Database, box: Mailbox
) -> None:
    bench = Bench(database, box.url)
    sees, blind = bench.alerter("a"), bench.alerter("b")
    for _ in range(60):
        bench.clock.elapsed += LOOK
        await sees.notify_of([CLOSED], 0)
        await blind.notify_of([], 0)
    assert box.texts == ["Accounts closed: 1 of 3"]
    await bench.run(600, blind, causes=[])
    assert box.texts[1:] == ["Over: Accounts closed: 1 of 3"], "the one that saw it is gone"


async def test_a_database_that_is_away_is_told_once_and_kept_when_it_is_back(
    database: Database, plain_shop: Shop, box: Mailbox
) -> None:
    bench = Bench(database, box.url)
    alerter, away = bench.alerter("a"), [Cause("not_ready", why="no scan yet")]
    await plain_shop.connection.execute(f"ALTER TABLE {SETTINGS} RENAME TO gone")
    await bench.run(120, alerter, causes=away)
    assert box.texts == ["Not working: no scan yet"]
    await plain_shop.connection.execute(f"ALTER TABLE gone RENAME TO {SETTINGS}")
    await bench.run(120, alerter, causes=away)
    await bench.run(120, bench.alerter("b"), causes=away)
    assert len(box.got) == 1


async def test_a_service_that_fails_is_tried_again_with_pauses_and_keeps_no_other_waiting(
    database: Database, box: Mailbox, logged: list[Any]
) -> None:
    async with mailbox() as other:
        bench = Bench(database, box.url, other.url)
        box.status = 500
        alerter = bench.alerter("a")
        await bench.run(600, alerter, causes=[STUCK])
        assert (len(other.got), box.asked) == (1, 4), "at once, and 60, 180 and 420 s later"
        box.status = 200
        await bench.run(600, alerter, causes=[STUCK])
        assert (len(other.got), box.texts) == (1, ["Orders stuck: 2"])
    told = [line for line in logged if line["event"] != "notify.alone"]
    first, second = (
        [line for line in told if line["service"] == name] for name in ("1 (JSON)", "2 (JSON)")
    )
    assert [line["event"] for line in first] == ["notify.failing", "notify.back", "notify.sent"]
    assert [line["event"] for line in second] == ["notify.sent"]
    assert "error=500" in first[0]["why"]


async def test_a_service_that_hangs_is_given_up_and_asked_no_more_until_it_lets_go(
    database: Database, box: Mailbox
) -> None:
    (service,) = services_of([box.url.replace("json://", "json://") + "?rto=20"], timeout=0.2)
    message = Messages("en", "h").of_test()
    box.hold.clear()
    began = time.monotonic()
    assert await service.send(message) == "timeout"
    assert await service.send(message) == "the message before is still being sent"
    assert time.monotonic() - began < 5
    box.hold.set()
    async with asyncio.timeout(30):
        while await service.send(message):
            await asyncio.sleep(0.05)


@pytest.fixture
def _in_istanbul(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(os.environ, "TZ", "Europe/Istanbul")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_istanbul")
async def test_the_daily_line_comes_once_a_day_at_its_time(
    database: Database, plain_shop: Shop, box: Mailbox
) -> None:
    """By this machine's zone: midnight UTC is three o'clock there."""
    for outcome, took, is_repeat in (
        ("completed", 40, False),
        ("completed", 400, False),
        ("failed", 7000, False),
        ("failed", 9, True),
    ):
        await plain_shop.connection.execute(
            "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome, repeat, sent_at) "
            "VALUES (gen_random_uuid(), 'sent', 'x', false, $1, $2, now() - make_interval(secs => $3))",
            *(outcome, is_repeat, took),
        )
    bench = Bench(database, box.url, language="tr", daily_at=8 * 60)
    bench.clock.epoch = NOW - NOW % 86_400 + 4.9 * 3600
    alerter = bench.alerter()
    await bench.run(300, alerter, causes=[])
    assert box.got == []
    for _ in range(3):
        await bench.run(300, alerter, causes=[])
    await bench.run(60, bench.alerter("b"), causes=[])
    assert box.got == [
        (
            "info",
            "order-monitor (shop-1): Son 24 saat",
            "2 tamamlandı, 1 başarısız, 7 bekliyor.\nYarısı, gönderildikten sonra 7 dk içinde sonuçlandı.",
        )
    ]
    bench.clock.elapsed += 86_400
    await bench.run(60, alerter, causes=[])
    assert len(box.got) == 2


async def test_a_clock_that_was_months_ahead_silences_no_daily_line(
    database: Database, box: Mailbox
) -> None:
    bench = Bench(database, box.url, daily_at=0)
    pair = [bench.alerter("a"), bench.alerter("b")]
    bench.clock.epoch += 60 * 86_400
    await bench.run(60, *pair, causes=[])
    bench.clock.epoch -= 60 * 86_400
    for day in range(3):
        await bench.run(120, *pair, causes=[])
        assert len(box.got) >= 2 + day
        bench.clock.elapsed += 86_400
    before = len(box.got)
    await bench.run(120, *pair, causes=[])
    assert len(box.got) == before + 1, "and then it comes once a day again"


async def test_no_secret_is_in_a_message_in_the_log_or_in_the_database(
    database: Database, plain_shop: Shop, box: Mailbox, logged: list[Any]
) -> None:
    """C1, C3: an address is a secret, and so is what the redactor knows."""
    bench = Bench(
        database, box.url, f"json://user:{TOKEN}@127.0.0.1:1/{TOKEN}", f"nonsense://{TOKEN}"
    )
    bench.redactor.learn(["PIN-CANARY-1"])
    await bench.run(
        60,
        bench.alerter(),
        causes=[Cause("not_ready", why="account PIN-CANARY-1 \u202e is closed")],
    )
    assert box.texts == ["Not working: account **** \\u202e is closed"]
    kept = await plain_shop.connection.fetchval(
        f"SELECT value FROM {SETTINGS} WHERE name = $1", NAME
    )
    assert json.loads(kept)["services"]
    shown = f"{logged} {kept} {box.got}"
    assert "CANARY" not in shown
    assert "127.0.0.1" not in kept
    assert [line["service"] for line in logged if line["event"] == "notify.unknown_address"] == [
        "3"
    ]


async def test_a_mistake_of_ours_ends_no_daemon(
    database: Database, box: Mailbox, logged: list[Any]
) -> None:
    bench = Bench(database, box.url)
    alerter = bench.alerter()
    odd: Any = [None]
    await alerter.one_pass(odd, 0)
    await alerter.one_pass(odd, 0)
    assert [line["event"] for line in logged] == ["notify.broken"]


def test_without_the_library_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(NoLibraryError, match=r"pip install 'order-monitor\[notify\]'"):
        services_of(["json://127.0.0.1"])
    database = Database(parse_dsn("postgresql://h/n"))
    settings = load(None, {"ORDER_MONITOR_NOTIFY__URLS": "json://127.0.0.1"})
    assert alerter_of(settings, database, ManualClock(), "me", Redactor()) is None
    assert [(line["event"], line["do"]) for line in logged] == [
        ("notify.missing", "pip install 'order-monitor[notify]'")
    ]
    assert alerter_of(load(None, {}), database, ManualClock(), "me", Redactor()) is None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", REMEDIES)
def test_each_kind_has_its_sentence(language: str, kind: str) -> None:
    cause = Cause(kind, 41, 57, 5400.0, "WHY-{n}", "provider")
    said = Messages(language, "h").sentence(cause)
    assert "{" not in said.replace("WHY-{n}", "")
    assert any(
        part in said for part in ("41", "57", "90", "WHY-{n}", "Provider", "Sağlayıcı", "المزوّد")
    )


async def test_a_judgement_is_the_pages_own() -> None:
    """What the page shows is what people are told, and what it takes its places from is known to
    it.
    """
    from importlib import resources

    stage = await stages.quiet(ManualClock())
    assert (causes_in(stage.view), urgent_causes_of(stage.view)) == ([], [])
    stage = await stages.on_fire(ManualClock())
    kinds = [cause.kind for cause in causes_in(stage.view)]
    assert kinds == [
        "closed",
        "paused",
        "late",
        "stuck",
        "overdue",
        "skipped",
        "events",
        "reviews",
        "light",
    ]
    assert [cause.kind for cause in urgent_causes_of(stage.view)] == ["not_ready", *kinds]
    assert document_of(stage.view)["attention"] == [
        cause.document() for cause in causes_in(stage.view)
    ]
    script = (resources.files("order_monitor.tell") / "page" / "page.js").read_text("utf-8")
    assert "status.attention" in script
    words = json.loads(
        (resources.files("order_monitor.tell") / "page" / "words.json").read_text("utf-8")
    )["en"]
    assert {key for key in words if key.startswith("cause_")} == {
        f"cause_{kind}" for kind in REMEDIES if kind != "not_ready"
    }


async def test_while_it_starts_nothing_is_told_unless_that_fails() -> None:
    stage = stages.Stage(clock=ManualClock())
    assert urgent_causes_of(stage.view) == []
    stage.engine.state.scan_problem = "ConnectionRefusedError"
    assert next(cause.kind for cause in urgent_causes_of(stage.view)) == "not_ready"
