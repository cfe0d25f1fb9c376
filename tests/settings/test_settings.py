"""Settings: each limit, each place they come from, and that no mistake shows a value."""

import json
import os
import re
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from order_monitor.core.errors import SettingsError
from order_monitor.settings.loading import load, load_notify
from order_monitor.settings.model import Settings, known_keys
from order_monitor.settings.sources import Found, TomlSource
from order_monitor.settings.types import parse_seconds
from tests.support.settings_files import EXAMPLE, example_lines, has_default

pytestmark = pytest.mark.outside

CANARY = "p@s/s?#%[x]CANARY"
DSN = "postgresql://u:p@h/n"
SIGNING = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NEEDED = ("database", "provider")


@pytest.fixture(autouse=True)
def _somewhere_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(
    toml: str | bytes | None = None,
    environ: dict[str, str] | None = None,
    need: tuple[str, ...] = (),
) -> list[str]:
    """Return what is wrong with these settings."""
    with pytest.raises(SettingsError) as caught:
        read(toml, environ, need)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.problems


def read(
    toml: str | bytes | None = None,
    environ: dict[str, str] | None = None,
    need: tuple[str, ...] = (),
) -> Settings:
    if toml is not None:
        Path("monitor.toml").write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return load(None, environ or {}, need=need)


def secrets_folder(**files: str) -> dict[str, str]:
    """Return an environment that names a directory with these files."""
    folder = Path("secrets").absolute()
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    return {"ORDER_MONITOR_SECRETS_DIR": str(folder)}


def test_a_file_that_is_gone_when_it_is_read_is_an_error() -> None:
    """Without it the defaults would be in force."""
    with pytest.raises(SettingsError, match="cannot be read"):
        TomlSource(Settings, Found(Path("gone.toml")))


def test_a_file_is_read_under_the_name_that_is_given() -> None:
    Path("~shop.toml").write_text("[schedule]\nbase = 77\n")
    assert load(Path("~shop.toml"), {}).schedule.base == 77


def test_nothing_at_all_gives_the_defaults() -> None:
    settings = read()
    assert settings == Settings()
    assert settings.schedule.give_up_after == 86_400
    assert settings.statuses.open == ("sent", "pending", "processing", "queued")
    assert settings.database.address() is None
    assert settings.secrets() == []


WRONG = "WRONG-CANARY"
BAD: list[tuple[str, list[Any]]] = [
    ("database.dsn", ["", WRONG, f"postgresql://u:{WRONG}#@h/n", 5]),
    ("database.host", ["", 5]),
    ("database.port", [0, 65_536, -1, 1.5, True, WRONG, "", "9" * 5000]),
    ("database.user", ["", 5]),
    ("database.password", ["", " ", 5]),
    ("database.name", ["", 5]),
    (
        "database.statement_timeout",
        [0, "0.9ms", 1_000_001, -1, True, WRONG, "", "1e3", "5 minutes"],
    ),
    ("database.time_zone", ["", "Asia/Baku'; --", "x y", 5]),
    ("database.schema", ["", "x" * 64, "a\0b", "a\nb", 5]),
    ("database.table", ["", "x" * 64, "a\0b", 5]),
    (
        "database.columns",
        [
            WRONG,
            "[]",
            "{",
            5,
            ["note"],
            {"note": ""},
            {"note": "x" * 64},
            {"nope": "x"},
            {"note": 5},
        ],
    ),
    ("database.lookup", [5, [5], [""], ["x" * 64], ["a\nb"], {"a": "b"}]),
    ("database.pins", ["", WRONG, 5, True]),
    ("database.pool_size", [1, 101, True, WRONG]),
    ("provider.source", [WRONG, "", 5]),
    ("provider.kind", [WRONG, "", 5, "barakat"]),
    ("provider.allow_http", [WRONG, 2, ""]),
    ("provider.allow_private", [WRONG, 2, ""]),
    ("provider.refresh", [WRONG, -1, True]),
    (
        "provider.base_url",
        [
            "",
            WRONG,
            5,
            "http://bayi.example.com",
            "ftp://bayi.example.com",
            "https://",
            "https:///path",
            "https://x:0",
            "https://x:99999",
            "https://x:CANARY",
            "https://[CANARY",
            "https://u:CANARY@x",
            "https://CANARY@x",
            "https://@x",
            "https://x?sifre=CANARY",
            "https://x?",
            "https://x#CANARY",
            "https://x#",
            "https://x y",
            "https://x\ty",
            "https://x\0y",
            "https://bayi.example.com\u200b",
            "https://-bayi.örnek.com",
        ],
    ),
    ("provider.kod", ["", "  ", 5]),
    ("provider.sifre", ["", "\t", 5]),
    ("provider.status_path", ["", "a b", "a?b=CANARY", "a#b", "ş", 5]),
    ("provider.token", ["", " ", 5]),
    ("provider.replay", ["", WRONG, "code", 5, True]),
    ("provider.connect_timeout", [0, -1, WRONG, True]),
    ("provider.timeout", [0, -1, WRONG, True]),
    (
        "provider.max_body",
        [255, "255", 16 * 1024 * 1024 + 1, "17MiB", "1GiB", -1, WRONG, True, "9" * 5000],
    ),
    ("provider.user_agent", ["", "ş", "a\nb", "a\rX-Injected: 1", 5]),
    ("provider.no_pin", [5, [5], [""], True]),
    ("provider.unique_pins", [WRONG, 2]),
    ("provider.reference_reuse", ["", WRONG, "oldest", 5, True]),
    ("provider.ca_file", ["", "/nowhere/ca.pem", __file__, "/tmp", 5]),
    ("provider.batch", [0, 101, -1, WRONG, True, 1.5]),
    ("provider.chains", ["", WRONG, "child", 5, True]),
    (
        "provider.proxy",
        [
            "",
            " ",
            WRONG,
            5,
            "proxy.example:3128",
            "socks4://proxy.example:1080",
            "http://",
            "http://proxy.example:0",
            f"http://proxy.example/{WRONG}",
            f"http://user:{WRONG}#@proxy.example:3128",
            f"http://:{WRONG}@proxy.example:3128",
            f"http://us%3Aer:{WRONG}@proxy.example:3128",
            f"socks5://user:{WRONG}{'x' * 256}@proxy.example",
        ],
    ),
    ("provider.balance_interval", [-1, WRONG, True]),
    ("provider.low_balance", [-1, "nan", True, WRONG]),
    ("schedule.first_check", [-1, WRONG, True, "1w"]),
    ("schedule.base", [0, -1, WRONG]),
    ("schedule.cap", [0, -1, WRONG]),
    ("schedule.jitter", [-0.1, 1.1, float("nan"), float("inf"), "nan", True, WRONG]),
    (
        "schedule.give_up_after",
        [0, -1, float("inf"), float("nan"), 10**400, 1e300, "9" * 400, True, WRONG, [1]],
    ),
    ("schedule.give_up_blind", [WRONG, 2]),
    ("schedule.give_up_unknown", [WRONG, 2]),
    ("schedule.confirm_cancelled", [-1, WRONG, True]),
    ("schedule.brake_hold", [-1, WRONG, True]),
    (
        "schedule.ignore_before",
        [-1, WRONG, True, "2026-13-01", "2026-11-29T25:00", "yesterday", [1], "1w"],
    ),
    ("schedule.recheck_after", [-1, WRONG, True]),
    ("schedule.late_after", [-1, WRONG, True]),
    ("schedule.await_pin", [-1, WRONG, True]),
    ("schedule.strategy", ["", "fixed", 5, True]),
    ("schedule.budget", ["", "most", 0, -1, "nan", "inf", True, WRONG, [1], 100_001]),
    ("schedule.min_interval", [0, -1, WRONG]),
    ("schedule.half_life", [0, -1, WRONG, True]),
    ("schedule.scan_interval", [0, -1, WRONG]),
    ("schedule.record_sync", [WRONG, 2]),
    ("schedule.observe", [WRONG, 2]),
    ("limits.concurrency", [0, 1001, 1.5, True, WRONG]),
    ("limits.calls_per_second", [0, -1, 100_001, float("nan"), float("inf"), True, WRONG]),
    ("limits.gate_after", [0, 1001, True, WRONG]),
    ("cluster.enabled", [WRONG, 2, ""]),
    ("statuses.preset", ["", "Watan", 5, "all"]),
    (
        "statuses.open",
        [
            [],
            5,
            "[",
            '["a"',
            [""],
            ["x" * 31],
            ["a\0"],
            [5],
            [" "],
            ["processing", "a "],
            "processing,",
        ],
    ),
    (
        "statuses.completed",
        ["", "x" * 31, "a\nb", 5, " ", "finished ", "\u00a0done", "do\u200bne", "\ufeffdone"],
    ),
    ("statuses.failed", ["", "x" * 31, 5, " ", " failed", "failed\u2009"]),
    ("statuses.processing", ["", "x" * 31, 5, "  ", "busy "]),
    ("statuses.settled", [5, "[", '["a"', [""], ["x" * 31], ["a\0"], [5], [" "], [" done"]]),
    ("notes.customer_column", ["", "a\0b", 5]),
    ("notes.author", ["", " ", "a ", "x" * 51, 5]),
    ("health.enabled", [WRONG, 2]),
    ("health.allow_open", [WRONG, 2]),
    ("health.token", ["", " ", 5]),
    ("health.host", ["", 5]),
    ("health.port", [-1, 65_536, True, WRONG]),
    ("health.hosts", [5, "[", [5], [""], "a,"]),
    ("health.ping_url", ["", "x", "ftp://x", f"https://x y/{WRONG}", 5]),
    ("events.consumer", ["", WRONG, "nobody", 5, True]),
    (
        "webhook.url",
        [
            "",
            "x",
            "ftp://x",
            "https://",
            "https://x:0",
            f"https://x y/{WRONG}",
            f"//x/{WRONG}",
            "https://[",
            5,
        ],
    ),
    (
        "webhook.secret",
        [
            "",
            WRONG,
            "whsec_",
            "whsec_MTIzNDU2Nw==",
            "whsec_!",
            f"x{SIGNING}",
            f"{SIGNING}{'A' * 88}",
            5,
        ],
    ),
    ("webhook.timeout", [0, -1, WRONG, True]),
    ("webhook.max_attempts", [0, 101, 1.5, True, WRONG]),
    (
        "notify.urls",
        [
            "",
            WRONG,
            f"//x/{WRONG}",
            f"tgram:{WRONG}",
            [WRONG],
            ["json://x", ""],
            ["json://x y"],
            [5],
            5,
            "[",
            "{}",
            {},
        ],
    ),
    ("notify.language", ["", WRONG, "EN", 5]),
    ("notify.daily_at", ["", WRONG, "24:00", "8", "08:60", "08:00:00", 800, True, ["08:00"]]),
    ("log.level", ["", WRONG, "INFO", 5]),
    ("log.format", ["", WRONG, 5]),
    ("shutdown.grace", [-1, WRONG, True]),
]


def toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=True)


def as_toml(key: str, value: object) -> str:
    section, _, name = key.partition(".")
    return f"[{section}]\n{name} = {toml_value(value)}\n"


def as_variable(key: str) -> str:
    return f"ORDER_MONITOR_{key.upper().replace('.', '__')}"


def is_shown(value: object, text: str) -> bool:
    """Whether a value, or a piece of it that says something, stands in a text."""
    pieces = (
        [piece for piece in re.split(r"[\s\0]", str(value)) if len(piece) > 8]
        if isinstance(value, str)
        else []
    )
    return "CANARY" in text or any(piece in text for piece in pieces)


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD for value in values]
)
def test_a_bad_value_is_named_by_its_place_and_never_shown(key: str, value: object) -> None:
    """C5: the place and what would be right, from the file and from the environment alike."""
    [problem] = problems(as_toml(key, value))
    assert re.match(rf"monitor\.toml: {re.escape(key)}(\.\w+)*(\.\[key\])?: \w", problem)
    assert not is_shown(value, problem)
    if isinstance(value, str) and value and "\0" not in value:
        [problem] = problems("", {as_variable(key): value})
        assert problem.startswith(f"{as_variable(key)}: ")
        assert not is_shown(value, problem)


def test_each_setting_of_a_wrong_kind_is_told_with_all_others_in_one_go() -> None:
    keys = [(section, key) for section, names in known_keys().items() for key in names]
    toml = "".join(
        f"[{section}]\n"
        + "".join(f"{key} = [[{{ CANARY = 1 }}]]\n" for of, key in keys if of == section)
        for section in known_keys()
    )
    told = problems(toml)
    assert {line.split(": ")[1].removesuffix(".0") for line in told} == {
        f"{section}.{key}" for section, key in keys
    }
    for line in told:
        _, _, text = line.split(": ", 2)
        assert len(text) > 10, line
        assert "CANARY" not in line
        assert "valid" not in text, "what is allowed, and no library's word for it"


def test_another_source_than_there_is_asks_for_no_other_settings() -> None:
    told = problems(
        f"[database]\ndsn = '{DSN}'\n[provider]\nsource = 'Database'", need=("database", "provider")
    )
    assert told == ["monitor.toml: provider.source: should be 'config' or 'database'"]


def test_where_a_settings_file_was_looked_for() -> None:
    with pytest.raises(SettingsError) as caught:
        read(None, {}, ("database",))
    here = Path("monitor.toml").absolute()
    assert caught.value.note.startswith(
        f"no settings file was found: looked for {here} and /etc/order-monitor/"
    )
    with pytest.raises(SettingsError) as caught:
        read("[log]\nlevel = 'odd'")
    assert caught.value.note == ""


def test_every_setting_has_a_bad_value_above() -> None:
    assert [key for key, _ in BAD] == [
        f"{section}.{key}" for section, keys in known_keys().items() for key in keys
    ]


GOOD: list[tuple[str, Any, Any]] = [
    ("database.port", 1, 1),
    ("database.port", "65535", 65_535),
    ("database.statement_timeout", "1ms", 0.001),
    ("database.statement_timeout", 1_000_000, 1e6),
    ("database.time_zone", "Etc/GMT+4", "Etc/GMT+4"),
    ("database.table", 'odd "table"', 'odd "table"'),
    ("database.schema", "x" * 63, "x" * 63),
    ("database.columns", {"note": "remark"}, {"note": "remark"}),
    ("database.lookup", ["order_number", "odd name"], ("order_number", "odd name")),
    ("database.pins", "elsewhere", "elsewhere"),
    ("database.pool_size", 2, 2),
    ("provider.base_url", " https://bayi.example.com/ ", "https://bayi.example.com/"),
    ("provider.base_url", "https://bayi.example.com:8443/sub", "https://bayi.example.com:8443/sub"),
    ("provider.base_url", "https://[::1]:8443", "https://[::1]:8443"),
    ("provider.kind", "client_api", "client_api"),
    ("provider.reference_reuse", "newest", "newest"),
    ("provider.replay", "pin", "pin"),
    ("provider.chains", "monitor", "monitor"),
    ("provider.max_body", 256, 256),
    ("provider.max_body", "1KiB", 1024),
    ("provider.max_body", "16 MiB", 16 * 1024 * 1024),
    ("provider.max_body", "4096B", 4096),
    ("schedule.first_check", 0, 0),
    ("schedule.first_check", "90s", 90),
    ("schedule.cap", "10m", 600),
    ("schedule.give_up_after", "2d", 172_800),
    ("schedule.give_up_after", "1.5 h", 5400),
    ("schedule.scan_interval", "250ms", 0.25),
    ("schedule.give_up_unknown", True, True),
    ("schedule.observe", True, True),
    ("schedule.brake_hold", 0, 0),
    ("schedule.ignore_before", "2026-11-29", "2026-11-29T00:00:00+00:00"),
    ("schedule.ignore_before", "2026-11-29T03:00:00+03:00", "2026-11-29T00:00:00+00:00"),
    ("schedule.ignore_before", "2026-11-29 08:00", "2026-11-29T08:00:00+00:00"),
    ("schedule.ignore_before", "30d", "2592000"),
    ("schedule.ignore_before", 0, "0"),
    ("schedule.jitter", 0, 0),
    ("schedule.jitter", 1, 1),
    ("limits.calls_per_second", 0.1, 0.1),
    ("limits.concurrency", 1000, 1000),
    ("statuses.preset", "watan", "watan"),
    ("statuses.settled", ["done", "iade edildi"], ("done", "iade edildi")),
    ("notes.customer_column", "manualNote", "manualNote"),
    ("notes.author", "system", "system"),
    ("health.port", 0, 0),
    ("health.hosts", ["a.example"], ("a.example",)),
    ("health.enabled", False, False),
    ("events.consumer", "none", "none"),
    ("events.consumer", "webhook", "webhook"),
    ("shutdown.grace", 0, 0),
    ("notify.language", "ar", "ar"),
    ("notify.daily_at", "8:05", "08:05"),
    ("log.level", "debug", "debug"),
]


@pytest.mark.parametrize(("key", "value", "meant"), GOOD)
def test_a_good_value_is_taken(key: str, value: object, meant: object) -> None:
    section, _, name = key.partition(".")
    taken = getattr(
        getattr(read(as_toml(key, value)), section), "schema_" if name == "schema" else name
    )
    assert taken == meant
    assert type(taken) in (type(meant), float)


@pytest.mark.parametrize(
    ("key", "value", "meant"), [row for row in GOOD if not isinstance(row[1], (list, dict))]
)
def test_the_environment_says_the_same_in_text(key: str, value: object, meant: object) -> None:
    section, _, name = key.partition(".")
    settings = read(environ={as_variable(key): str(value)})
    assert getattr(getattr(settings, section), "schema_" if name == "schema" else name) == meant


def test_the_addresses_of_services_are_secrets_and_come_in_any_way() -> None:
    """C5: one a line from a file, with commas or as JSON from the environment.

    An address may itself hold a comma.
    """
    both = ["tgram://1:CANARY/2,3", "mailto://u:CANARY@mail.example?to=a@x.example,b@x.example"]
    written = [
        read(f"[notify]\nurls = {toml_value(both)}\n"),
        *(
            read(environ={as_variable("notify.urls"): text})
            for text in (", ".join(both), "\n".join(both), json.dumps(both))
        ),
    ]
    for settings in written:
        assert [url.get_secret_value() for url in settings.notify.urls] == both
        assert set(both) <= set(settings.secrets())
        assert "CANARY" not in repr(settings)
    assert read("[notify]\ndaily_at = 07:30:00\n").notify.daily_minutes == 450
    assert read("").notify.daily_minutes is None


def test_who_is_to_be_told_is_known_whatever_else_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the settings is a cause of what is to be told."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "monitor.toml"
    cases = {
        "[database]\nhots = 1\n[notify]\nurls = ['json://x']\nlanguage = 'tr'\n": "tr",
        "[nonsense]\na = 1\n[notify]\nurls = ['json://x']\nlanguage = 'xx'\ndaily = 1\n": "en",
    }
    for text, language in cases.items():
        file.write_text(text)
        found = load_notify(None, {"ORDER_MONITOR_NONSENSE": "1"})
        assert (len(found.urls), found.language) == (1, language)
    file.write_text("[notify\n")
    assert len(load_notify(None, {as_variable("notify.urls"): "json://x json://y"}).urls) == 2
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_notify(None, {})
    file.write_text("[notify]\nurls = ['CANARY']\n")
    with pytest.raises(SettingsError, match=r"notify\.urls: give addresses as Apprise"):
        load_notify(None, {})
    file.write_text("")
    assert load_notify(None, {}).urls == ()


def test_a_proxys_address_is_a_secret_and_so_is_its_login() -> None:
    settings = read("[provider]\nproxy = 'http://proxy-user:p%40CANARY@proxy.example:3128'\n")
    assert {"proxy-user", "p@CANARY", "http://proxy-user:p%40CANARY@proxy.example:3128"} <= set(
        settings.secrets()
    )
    assert "CANARY" not in repr(settings)
    for good in ("https://proxy.example", "socks5://u:p@10.0.0.7:1080", "socks5h://[::1]"):
        assert read(environ={as_variable("provider.proxy"): good}).provider.proxy is not None


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s", "m", "h", "d", ""]))
def test_durations_with_a_unit(number: int, unit: str) -> None:
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}[unit] * number
    if seconds < 3e9:
        assert parse_seconds(f"{number}{unit}") == pytest.approx(seconds)
        assert parse_seconds(f" {number} {unit} ") == pytest.approx(seconds)


@given(
    st.text()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.binary()
    | st.lists(st.integers())
)
@example("9" * 5000)
@example(10**400)
@example("\u0661\u0662s")
def test_durations_of_any_kind_are_seconds_or_an_error_that_does_not_repeat_them(
    value: object,
) -> None:
    try:
        seconds = parse_seconds(value)
    except ValueError as error:
        message = str(error)
    else:
        assert 0 <= seconds < 100 * 366 * 86_400
        message = 'give seconds, or a number with a unit: 90, "90s", "10m", "24h"'
    assert message == 'give seconds, or a number with a unit: 90, "90s", "10m", "24h"'


def test_a_date_of_the_file_s_own_kind_is_a_moment_too() -> None:
    for written in ("2026-11-29", "2026-11-29T03:00:00+03:00", "2026-11-29T00:00:00"):
        found = read(f"[schedule]\nignore_before = {written}\n").schedule.ignore_before
        assert found == "2026-11-29T00:00:00+00:00"


def test_lists_and_tables_from_the_environment() -> None:
    comma = read(environ={"ORDER_MONITOR_STATUSES__OPEN": "sent, processing ,işlemde"})
    assert comma.statuses.open == ("sent", "processing", "işlemde")
    as_json = read(environ={"ORDER_MONITOR_STATUSES__OPEN": ' ["a,b", "processing"]'})
    assert as_json.statuses.open == ("a,b", "processing")
    assert read(environ={"ORDER_MONITOR_HEALTH__HOSTS": "one.example"}).health.hosts == (
        "one.example",
    )
    columns = read(environ={"ORDER_MONITOR_DATABASE__COLUMNS": '{"note": "remark"}'})
    assert columns.database.columns == {"note": "remark"}
    one = read(
        "[database.columns]\nnote = 'a'\n", {"ORDER_MONITOR_DATABASE__COLUMNS__PIN_CODE": "b"}
    )
    assert one.database.columns == {"note": "a", "pin_code": "b"}


@pytest.mark.parametrize(
    ("toml", "where", "text"),
    [
        ("[statuses]\nopen = ['sent']", "statuses", "processing must be one of open"),
        ("[statuses]\nprocessing = 'busy'", "statuses", "processing must be one of open"),
        ("[statuses]\ncompleted = 'sent'", "statuses", "must not be among open"),
        ("[statuses]\nfailed = 'queued'", "statuses", "must not be among open"),
        ("[statuses]\ncompleted = 'Sent'", "statuses", "must not be among open"),
        ("[statuses]\ncompleted = 'over'\nfailed = 'OVER'", "statuses", "must differ"),
        (
            "[statuses]\nfailed = 'completed'",
            "statuses",
            "completed and failed must not mean the opposite",
        ),
        (
            "[statuses]\ncompleted = 'x'\nfailed = 'x'",
            "statuses",
            "completed and failed must differ",
        ),
        ("[statuses]\ncompleted = 'rejected'", "statuses", "must not mean the opposite"),
        ("[statuses]\nfailed = 'Delivered'", "statuses", "must not mean the opposite"),
        *(
            (
                f"[statuses]\nfailed = 'x'\ncompleted = 'y'\nopen = ['processing', '{word}']",
                "statuses",
                "an order that has ended",
            )
            for word in ("failed", "Failed", "cancelled", "CANCELED", "rejected", "completed")
        ),
        ("[schedule]\ncap = 29", "schedule", "cap must not be smaller than base"),
        ("[schedule]\nbase = '11m'", "schedule", "cap must not be smaller than base"),
        (
            "[schedule]\nmin_interval = 20\ncap = 10\nbase = 5",
            "schedule",
            "min_interval must not be longer than cap",
        ),
        (
            "[schedule]\ngive_up_after = 60",
            "schedule",
            "give_up_after must be longer than first_check",
        ),
        (
            "[schedule]\nfirst_check = '24h'",
            "schedule",
            "give_up_after must be longer than first_check",
        ),
        (
            "[health]\nhost = '0.0.0.0'",
            "health",
            "not a loopback address: set token, or allow_open",
        ),
        ("[health]\nhost = '::'", "health", "not a loopback address: set token, or allow_open"),
        (f"[database]\ndsn = '{DSN}'\nhost = 'h'", "database", "either dsn, or host"),
        (f"[database]\ndsn = '{DSN}'\nport = 6543", "database", "either dsn, or host"),
        (f"[database]\ndsn = '{DSN}'\nuser = 'u'", "database", "either dsn, or host"),
        (f"[database]\ndsn = '{DSN}'\npassword = 'CANARY'", "database", "either dsn, or host"),
        (f"[database]\ndsn = '{DSN}'\nname = 'n'", "database", "either dsn, or host"),
        ("database = 5", "database", "should be a valid dictionary"),
        ("[[log]]\nlevel = 'info'", "log", "should be a valid dictionary"),
    ],
)
def test_settings_that_do_not_go_together(toml: str, where: str, text: str) -> None:
    [problem] = problems(toml)
    assert problem.startswith(f"monitor.toml: {where}: ")
    assert text in problem
    assert "CANARY" not in problem


def test_what_does_not_go_together_is_named_by_what_was_set_last() -> None:
    """The file alone was right: pointing at it would send its reader the wrong way."""
    [problem] = problems("[schedule]\ncap = 60\n", {"ORDER_MONITOR_SCHEDULE__BASE": "61"})
    assert problem == "ORDER_MONITOR_SCHEDULE__BASE: cap must not be smaller than base"


@pytest.mark.parametrize(
    "health",
    [
        "host = '0.0.0.0'\ntoken = 'CANARY'",
        "host = '0.0.0.0'\nallow_open = true",
        "host = '0.0.0.0'\nenabled = false",
        "host = '::1'",
        "host = 'localhost'",
    ],
)
def test_the_health_endpoint_is_open_to_others_only_by_somebodys_word(health: str) -> None:
    assert read(f"[health]\n{health}\n").health.host


def test_a_preset_has_the_words_that_are_not_given() -> None:
    plain = read("").statuses
    watan = read("[statuses]\npreset = 'watan'\n").statuses
    assert (watan.completed, watan.failed, watan.processing) == ("done", "failed", "processing")
    assert {"unknown", "connection_error", "wait", *plain.open} <= set(watan.open)
    assert {"not_sent", "forwarded", "manual_required", "approved", "completed"} <= set(watan.known)
    assert not set(watan.known) & set(watan.open)
    assert watan.settled == ("approved", "rejected")
    assert "forwarded" not in plain.known
    own = read("[statuses]\npreset = 'watan'\ncompleted = 'ok'\nsettled = []\n").statuses
    assert (own.completed, own.failed, own.settled) == ("ok", "failed", ())
    with pytest.raises(SettingsError, match="processing must be one of open"):
        read("[statuses]\npreset = 'watan'\nopen = ['sent']\n")


def test_statuses_and_limits_may_be_changed_together() -> None:
    settings = read(
        "[statuses]\nopen = ['a', 'b']\nprocessing = 'b'\ncompleted = 'c'\nfailed = 'd'\n"
    )
    assert settings.statuses.open == ("a", "b")


def test_environment_beats_secrets_file_beats_toml() -> None:
    toml = "[provider]\nkod = 'toml'\nsifre = 'toml'\nuser_agent = 'toml'\n"
    secrets = secrets_folder(
        order_monitor_provider__sifre="file\r\n", order_monitor_provider__user_agent="file"
    )
    settings = read(toml, {**secrets, "ORDER_MONITOR_PROVIDER__USER_AGENT": "environment"})
    assert settings.provider.kod is not None
    assert settings.provider.kod.get_secret_value() == "toml"
    assert settings.provider.sifre is not None
    assert settings.provider.sifre.get_secret_value() == "file", "without the line's end"
    assert settings.provider.user_agent == "environment"


def test_an_empty_variable_counts_as_not_set() -> None:
    """E10: an empty variable of a compose file must not wipe out the file's password."""
    settings = read(
        "[provider]\nsifre = 'toml'\n",
        {"ORDER_MONITOR_PROVIDER__SIFRE": "", "ORDER_MONITOR_POLLL": ""},
    )
    assert settings.provider.sifre is not None
    assert settings.provider.sifre.get_secret_value() == "toml"


@pytest.mark.parametrize("name", ["dsn", "password"])
@pytest.mark.parametrize("content", ["", "\n", " \n"])
def test_an_empty_secrets_file_is_refused(name: str, content: str) -> None:
    """E10."""
    secrets = secrets_folder(**{f"order_monitor_database__{name}": content})
    [problem] = problems("", secrets)
    assert problem.startswith(
        f"{secrets['ORDER_MONITOR_SECRETS_DIR']}/order_monitor_database__{name}: "
    )


def test_words_that_end_an_order_elsewhere_may_be_open_here() -> None:
    """A shop may say "delivered" of what the provider has taken: `check` warns of it."""
    settings = read("[statuses]\nopen = ['sent', 'processing', 'delivered', 'Done']\n")
    assert settings.statuses.doubtful() == ["delivered", "Done"]
    assert read("").statuses.doubtful() == []


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_of_the_secrets_only_plain_files_are_opened(kind: str) -> None:
    """A pipe that nobody writes to would hold up the start for ever, a device may have no end."""
    secrets = secrets_folder(order_monitor_provider__sifre="file\n")
    path = Path(secrets["ORDER_MONITOR_SECRETS_DIR"]) / "order_monitor_provider__kod"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path.relative_to(Path.cwd())))
    else:
        path.symlink_to("/dev/zero")
    assert problems("", secrets) == [f"{path}: is no plain file, and was not opened"]
    path.unlink()
    (path.parent / "..data").mkdir()
    (path.parent / "..data" / "kod").write_text("linked", "utf-8")
    path.symlink_to("..data/kod")
    kod = read("", secrets).provider.kod
    assert kod is not None
    assert kod.get_secret_value() == "linked", "as Kubernetes mounts them"


def test_a_secret_has_an_end() -> None:
    secrets = secrets_folder(order_monitor_provider__kod="k" * 70_000)
    path = Path(secrets["ORDER_MONITOR_SECRETS_DIR"]) / "order_monitor_provider__kod"
    assert problems("", secrets) == [f"{path}: is too long for a secret"]
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert problems("", secrets) == [f"{path}: is too long for a secret"]


@pytest.mark.parametrize("key", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_pipe_is_no_file_for_the_databases_encryption(key: str) -> None:
    """The driver would open it, and nothing else would happen from then on."""
    os.mkfifo("pipe.pem")
    [problem] = problems(f"[database]\ndsn = 'postgresql://u:CANARY@h/n?{key}=pipe.pem'\n")
    assert problem == f"monitor.toml: database.dsn: {key} after '?' names no plain file"
    assert (
        read(
            "[database]\ndsn = 'postgresql://u:p@h/n?sslrootcert=/nowhere.pem'\n"
        ).database.address()
        is not None
    )


def test_a_pipe_is_no_file_of_certificates() -> None:
    os.mkfifo("ca.pem")
    [problem] = problems("[provider]\nca_file = 'ca.pem'\n")
    assert "give a readable file of CA certificates" in problem


def test_an_empty_kod_sifre_or_token_is_refused_in_each_place() -> None:
    """E10."""
    for key in ("provider.kod", "provider.sifre", "provider.token", "health.token"):
        assert problems(as_toml(key, "")) == [f"monitor.toml: {key}: is empty"]
        assert problems("", {as_variable(key): " "}) == [f"{as_variable(key)}: is empty"]
        name = f"order_monitor_{key.replace('.', '__')}"
        [problem] = problems("", secrets_folder(**{name: "\n"}))
        assert problem.endswith(f"/{name}: is empty")
        (Path("secrets") / name).unlink()


UNKNOWN_NAMES = [
    ("POLLL", "unknown; names are ORDER_MONITOR_<SECTION>__<KEY>"),
    ("DATABASE_DSN", "did you mean ORDER_MONITOR_DATABASE__DSN?"),
    ("DB_POOL", "unknown; names are ORDER_MONITOR_<SECTION>__<KEY>"),
    ("GRACE", "unknown; names are ORDER_MONITOR_<SECTION>__<KEY>"),
    ("DATABASE__DSNN", "unknown key; did you mean database.dsn?"),
    ("DATABASE__POOL", "unknown key; did you mean database.pool_size?"),
    ("DATABASE__XYZZY", "unknown key; there are dsn, host, port,"),
    ("DATABSE__DSN", "unknown key; did you mean database?"),
    ("POLLL__DSN", "unknown key; there are database, provider,"),
    ("PROVIDER__KOD__X", "unknown key; provider.kod has no keys below it"),
    ("DATABASE__COLUMNS__NOPE", "no such column: nope; there are id, tenant_id,"),
    ("DATABASE__SCHEMA_", "unknown key; did you mean database.schema?"),
    ("", "unknown; names are ORDER_MONITOR_<SECTION>__<KEY>"),
    ("__DSN", "unknown key; there are database, provider,"),
]


@pytest.mark.parametrize(("name", "hint"), UNKNOWN_NAMES)
def test_an_unknown_variable_is_an_error_with_a_hint(name: str, hint: str) -> None:
    """E10: a misspelt name is never ignored, and its value is not shown."""
    toml = "[provider]\nkod = 'x'\n"
    [problem] = problems(toml, {f"ORDER_MONITOR_{name}": CANARY})
    assert problem.startswith(f"ORDER_MONITOR_{name}: ")
    assert hint in problem
    assert "CANARY" not in problem


@pytest.mark.parametrize(
    ("toml", "variable", "problem"),
    [
        (
            "columns = '{}'",
            {},
            "order_monitor_database__columns__note: unknown key; database.columns has no keys below it",
        ),
        (
            "",
            {"ORDER_MONITOR_DATABASE__COLUMNS": "{}"},
            "order_monitor_database__columns__note: unknown key; database.columns has no keys below it",
        ),
    ],
)
def test_a_table_and_a_text_for_one_key_is_an_error(
    toml: str, variable: dict[str, str], problem: str
) -> None:
    """E10: one of the two would be passed over."""
    secrets = secrets_folder(order_monitor_database__columns__note="CANARY")
    [found] = problems(f"[database]\n{toml}\n", secrets | variable)
    assert found.endswith(f"/{problem}")


@pytest.mark.parametrize(("name", "hint"), [row for row in UNKNOWN_NAMES if row[0]])
def test_an_unknown_secrets_file_is_an_error_with_a_hint(name: str, hint: str) -> None:
    """E10."""
    secrets = secrets_folder(**{f"order_monitor_{name.lower()}": CANARY})
    [problem] = problems("[provider]\nkod = 'x'\n", secrets)
    assert problem.startswith(
        f"{secrets['ORDER_MONITOR_SECRETS_DIR']}/order_monitor_{name.lower()}: "
    )
    assert hint in problem
    assert "CANARY" not in problem


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("[database]\ndsnn = 'CANARY'", "database.dsnn: unknown key; did you mean database.dsn?"),
        ("[databse]\ndsn = 'CANARY'", "databse: unknown key; did you mean database?"),
        ("dsn = 'CANARY'", "dsn: unknown key; there are database, provider,"),
        ("[database]\n[DATABASE]\ndsn = 'CANARY'", "DATABASE: unknown key; there are database,"),
        (
            "[database.columns]\nnope = 'CANARY'",
            "database.columns: no such column: nope; there are id,",
        ),
        ("[log]\nx.y = 'CANARY'", "log.x: unknown key; there are level, format"),
        ("_cli_parse_args = true", "_cli_parse_args: unknown key; there are database,"),
        ("_secrets_dir = 'CANARY'", "_secrets_dir: unknown key; there are database,"),
        ("__pydantic_self__ = 'CANARY'", "__pydantic_self__: unknown key; there are database,"),
    ],
)
def test_an_unknown_key_of_the_file_is_an_error_with_a_hint(toml: str, text: str) -> None:
    """E10: also a key that the library beneath would take for an argument of its own."""
    [problem] = problems(toml)
    assert problem.startswith(f"monitor.toml: {text}")
    assert "CANARY" not in problem


def test_kubernetes_own_variables_are_ignored() -> None:
    service = {
        "ORDER_MONITOR_SERVICE_HOST": "10.0.0.1",
        "ORDER_MONITOR_SERVICE_PORT": "80",
        "ORDER_MONITOR_SERVICE_PORT_HTTP": "80",
        "ORDER_MONITOR_PORT": "tcp://10.0.0.1:80",
        "ORDER_MONITOR_PORT_80_TCP": "tcp://10.0.0.1:80",
        "ORDER_MONITOR_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert read(environ=service) == Settings()
    assert len(problems(environ={**service, "ORDER_MONITOR_SERVICE": "x"})) == 1


def test_other_programs_variables_are_not_looked_at() -> None:
    environ = {
        "ORDER_MONITORX": "1",
        "DATABASE__DSN": "x",
        "PATH": "/bin",
        "order_monitor_log__level": "debug",
    }
    assert read(environ=environ).log.level == "debug", "but ours in any case of letters"


def test_all_mistakes_are_told_at_once() -> None:
    """What is missing, too: nobody should start the program four times to learn of four mistakes."""
    told = problems(
        f"[limits]\nconcurrency = 0\nspeed = 9\n[log]\nlevel = '{CANARY}'\n[whook]\n",
        {
            "ORDER_MONITOR_POLLL": CANARY,
            "ORDER_MONITOR_SCHEDULE__JITTER": "2",
            **secrets_folder(order_monitor_health__port=CANARY),
        },
        NEEDED,
    )
    places = sorted(
        problem.partition(": unknown")[0].partition(": should")[0].partition(": miss")[0]
        for problem in told
    )
    folder = Path("secrets").absolute()
    assert places == sorted(
        [
            "ORDER_MONITOR_POLLL",
            "ORDER_MONITOR_SCHEDULE__JITTER",
            f"{folder}/order_monitor_health__port",
            "monitor.toml: limits.concurrency",
            "monitor.toml: limits.speed",
            "monitor.toml: log.level",
            "monitor.toml: whook",
            "monitor.toml: database.dsn",
            "monitor.toml: provider.base_url",
            "monitor.toml: provider.kod",
            "monitor.toml: provider.sifre",
        ]
    )
    assert "CANARY" not in "\n".join(told)


def test_what_is_missing_is_named_with_every_place_it_may_be_set_in() -> None:
    [problem] = problems(need=("database",))
    assert problem == (
        "monitor.toml: database.dsn: missing; set it there, or as ORDER_MONITOR_DATABASE__DSN, "
        "or in a secrets file named order_monitor_database__dsn"
    )
    provider = "[provider]\nbase_url = 'https://x.example'\nkod = 'k'\n"
    assert [p.split(":")[1] for p in problems(provider, need=("provider",))] == [" provider.sifre"]
    token = "[provider]\nkind = 'client_api'\nkod = 'k'\n"
    assert [p.split(":")[1] for p in problems(token, need=("provider",))] == [
        " provider.base_url",
        " provider.token",
    ]
    enough = read(provider + "sifre = 's'\n[database]\nhost = 'h'\n", need=NEEDED)
    assert enough.database.address() is not None


def test_a_file_that_was_named_must_be_there() -> None:
    """E10: a missing file never means the defaults, in silence."""
    for path in (Path("nowhere.toml"), Path.cwd()):
        with pytest.raises(SettingsError) as caught:
            load(path, {})
        assert caught.value.problems == [f"{path}: there is no such file"]
    Path("named.toml").write_text("[log]\nlevel = 'error'\n")
    Path("monitor.toml").write_text("[log]\nlevel = 'debug'\n")
    assert load(Path("named.toml"), {}).log.level == "error"
    assert load(None, {}).log.level == "debug", "else the one in the working directory"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('[database]\ndsn = "CANARY\n', r" \(at line 2, column \d+\)"),
        ("[database]\ndsn = CANARY\n", r" \(at line 2, column \d+\)"),
        ("[log]\n[log]\n", r" \(at line 2, column \d+\)"),
        ("[database]\nport = " + "1" * 5000, ""),
        ("x = " + "[" * 5000, ""),
    ],
)
def test_invalid_toml_names_the_line(content: str, where: str) -> None:
    [problem] = problems(content)
    assert re.fullmatch(f"monitor.toml: not valid TOML{where}", problem)


def test_the_files_encoding() -> None:
    assert problems(b"[provider]\nsifre = '\xfeCANARY'\n") == ["monitor.toml: not valid UTF-8"]
    assert problems("[log]".encode("utf-16")) == ["monitor.toml: not valid UTF-8"]
    assert read(b"\xef\xbb\xbf[log]\r\nlevel = 'debug'\r\n").log.level == "debug", (
        "a BOM is an editor's doing"
    )


def test_a_directory_of_secrets_that_was_named_must_be_there() -> None:
    """E10."""
    for environ in ({"ORDER_MONITOR_SECRETS_DIR": "nowhere"}, {"CREDENTIALS_DIRECTORY": "nowhere"}):
        assert problems(environ=environ) == [
            "nowhere: there is no such directory of secrets, or it cannot be read"
        ]
    Path("file").write_text("")
    assert problems(environ={"ORDER_MONITOR_SECRETS_DIR": "file"})


def test_systemds_credentials_are_read_unless_another_directory_is_named() -> None:
    named = secrets_folder(order_monitor_log__level="error")
    credentials = Path("credentials")
    credentials.mkdir()
    (credentials / "order_monitor_log__level").write_text("debug\n")
    (credentials / "another_services_secret").write_text("x")
    systemd = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert read(environ=systemd).log.level == "debug"
    assert read(environ={**systemd, **named}).log.level == "error"


def test_secrets_files_of_odd_content() -> None:
    environ = secrets_folder(order_monitor_provider__sifre="\ufeff two\nlines \n\n")
    folder = Path("secrets")
    (folder / "order_monitor_folder").mkdir()
    sifre = read(environ=environ).provider.sifre
    assert sifre is not None
    assert sifre.get_secret_value() == " two\nlines ", (
        "only the file's own end is no part of the password"
    )
    (folder / "order_monitor_provider__sifre").write_bytes(b"\xff\xfeCANARY")
    (folder / "order_monitor_provider__kod").symlink_to("nowhere")
    told = problems(environ=environ)
    assert told == [
        f"{folder.absolute()}/order_monitor_provider__{key}: cannot be read as text"
        for key in ("kod", "sifre")
    ]


def everywhere(settings: Settings) -> str:
    """Return each way in which settings are shown, by intent or by accident."""
    return "\n".join(
        [
            f"{settings} {settings!r}",
            settings.model_dump_json(),
            str(settings.model_dump()),
            str(settings.model_dump(mode="json")),
            str(vars(settings)),
            *(f"{section} {section!r} {section.model_dump_json()}" for _, section in settings),
            f"{settings.database.address()} {settings.database.address()!r}",
        ]
    )


@pytest.mark.parametrize("escaped", [False, True])
def test_secrets_are_never_shown_by_settings_that_are_right(escaped: bool) -> None:  # noqa: FBT001
    """C5, C6, C7: and the log's redactor learns each of them."""
    database = (
        f'dsn = "postgresql://u:{quote(CANARY, safe="")}@h/n?sslpassword={quote(CANARY, safe="")}2"'
        if escaped
        else f'host = "h"\npassword = "{CANARY}"'
    )
    settings = read(
        f'[database]\n{database}\n[provider]\nkod = "{CANARY}3"\nsifre = "{CANARY}4"\n[health]\ntoken = "{CANARY}5"\n'
    )
    shown = everywhere(settings)
    assert "CANARY" not in shown
    assert "**********" in shown
    assert {CANARY, f"{CANARY}3", f"{CANARY}4", f"{CANARY}5"} <= set(settings.secrets())
    assert not escaped or f"{CANARY}2" in settings.secrets()


PLACES: list[Callable[[str], str]] = [
    lambda secret: secret,
    lambda secret: f"{secret}://u:p@h/n",
    lambda secret: f"postgresql://{secret}:p@h/n",
    lambda secret: f"postgresql://u:{secret}@h/n",
    lambda secret: f"postgresql://u:p@{secret}/n",
    lambda secret: f"postgresql://u:p@h:{secret}/n",
    lambda secret: f"postgresql://u:p@h/{secret}",
    lambda secret: f"postgresql://u:p@h/n?{secret}",
    lambda secret: f"postgresql://u:p@h/n?{secret}=1",
    lambda secret: f"postgresql://u:p@h/n?sslmode={secret}",
    lambda secret: f"postgresql://u:p@h/n?port={secret}",
    lambda secret: f"postgresql://u:p@h/n?schema={secret}",
    lambda secret: f"postgresql://u:p@h/n#{secret}",
]


@pytest.mark.parametrize("place", range(len(PLACES)))
@pytest.mark.parametrize(
    "secret", [CANARY, "CANARY", "p/CANARY", "p?CANARY", "p#CANARY", "p[CANARY", "[x]CANARY"]
)
def test_a_secret_in_any_position_of_a_dsn_is_never_told(place: int, secret: str) -> None:
    """C5, C6: from the file, a secrets file and the environment."""
    dsn = PLACES[place](secret)
    for toml, environ in [
        (as_toml("database.dsn", dsn), {}),
        ("", {"ORDER_MONITOR_DATABASE__DSN": dsn}),
        ("", secrets_folder(order_monitor_database__dsn=dsn)),
    ]:
        try:
            settings = read(toml, environ)
        except SettingsError as error:
            told = f"{error} {error!r} {error.problems} {error.__cause__}"
        else:
            address = settings.database.address()
            assert address is not None
            told = f"{settings} {settings!r} {settings.model_dump_json()}"
            assert "CANARY" not in (address.password or "") or "CANARY" not in repr(address)
        assert "CANARY" not in told


@pytest.mark.parametrize(
    "kind", ["missing", "wrong type", "bad JSON", "extra", "not TOML", "not UTF-8"]
)
def test_no_kind_of_mistake_shows_the_secrets_around_it(kind: str) -> None:
    """C5: the error has the whole input in its hands."""
    provider = f'[provider]\nkod = "{CANARY}"\nsifre = "{CANARY}"\n'
    database = f'[database]\nhost = "h"\npassword = "{CANARY}"\n'
    environ: dict[str, str] = {"ORDER_MONITOR_HEALTH__TOKEN": CANARY}
    toml: str | bytes = provider + database
    match kind:
        case "wrong type":
            toml = f'{provider}timeout = "{CANARY}"\n{database}port = "{CANARY}"\n[log]\nlevel = ["{CANARY}"]\n'
        case "bad JSON":
            environ["ORDER_MONITOR_DATABASE__COLUMNS"] = f'{{"note": "{CANARY}"'
            environ["ORDER_MONITOR_STATUSES__OPEN"] = f'["{CANARY}"'
            environ["ORDER_MONITOR_PROVIDER"] = f'{{"sifre": "{CANARY}"}}'
        case "extra":
            toml = f'{provider}parola = "{CANARY}"\n{database}pass = "{CANARY}"\n'
        case "not TOML":
            toml = f'{provider}{database}kod = "{CANARY}\n'
        case "not UTF-8":
            toml = f"{provider}{database}#".encode() + b"\xff"
    told = problems(toml, environ, NEEDED)
    assert told
    assert "CANARY" not in "\n".join(told)


def test_the_example_has_every_key_once_in_order_and_explained() -> None:
    found = [(section, key) for section, key, _, _ in example_lines()]
    assert found == [(section, key) for section, keys in known_keys().items() for key in keys]
    for section, key, _, above in example_lines():
        assert re.match(r"^# \S.{10,}[.!?]$", above), f"{section}.{key} has no explanation"
        assert ("no default" in above) is not has_default(section, key), f"{section}.{key}"


def test_the_example_as_it_is_sets_nothing() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert tomllib.loads(text) == {section: {} for section in known_keys()}
    assert read(text) == Settings()


def test_the_examples_values_are_the_defaults() -> None:
    lines = dict.fromkeys(known_keys(), "")
    for section, key, value, _ in example_lines():
        if has_default(section, key):
            lines[section] += f"{key} = {value}\n"
    toml = "".join(f"[{section}]\n{text}" for section, text in lines.items())
    assert read(toml).model_dump() == Settings().model_dump()
    assert sum(len(values) for values in tomllib.loads(toml).values()) > 30, "it read something"


def test_the_examples_values_without_default_are_good_ones(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(authority)
    for leave_out in (("host", "port", "user", "password", "name"), ("dsn",)):
        lines = dict.fromkeys(known_keys(), "")
        for section, key, value, _ in example_lines():
            if section != "database" or key not in leave_out:
                there = value.replace("/etc/order-monitor/ca.pem", str(authority))
                lines[section] += f"{key} = {there}\n"
        settings = read(
            "".join(f"[{section}]\n{text}" for section, text in lines.items()), need=NEEDED
        )
        address = settings.database.address()
        assert address is not None
        assert (address.hosts, address.user, address.name) == (
            ("db.example.com",),
            "monitor",
            "shop",
        )


def test_observe_may_stand_above_all_sections() -> None:
    assert read("observe = true").observe
    assert read("", {"ORDER_MONITOR_OBSERVE": "true"}).observe
    assert not read("observe = true", {"ORDER_MONITOR_OBSERVE": "false"}).observe
    assert problems("observe = 'CANARY'") == [
        "monitor.toml: schedule.observe: should be true or false"
    ]
    assert problems("", {"ORDER_MONITOR_OBSERVE": "CANARY"}) == [
        "ORDER_MONITOR_OBSERVE: should be true or false"
    ]
    assert problems("observe = true\n[schedule]\nobserve = true") == [
        "monitor.toml: observe: given twice; schedule.observe is the same setting"
    ]
    # The environment wins over the file, by whichever name.
    assert not read("observe = true", {"ORDER_MONITOR_SCHEDULE__OBSERVE": "false"}).observe
    assert read("[schedule]\nobserve = false", {"ORDER_MONITOR_OBSERVE": "true"}).observe
