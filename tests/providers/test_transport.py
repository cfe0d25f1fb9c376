"""One question, one connection: nothing that a server says beside its answer is ever another
order's answer.
"""

import asyncio
import datetime as dt
import itertools
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from order_monitor.core.answer import Answer, Blocked, Completed, Unreachable
from order_monitor.core.pin import Pin
from order_monitor.providers.client_api.client import ClientApi, ClientApiAccount
from order_monitor.providers.http.transport import (
    CERTIFICATE_WORDS,
    FreshConnections,
    WireExchange,
    trusting,
)
from order_monitor.providers.provider import NoBalance
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.system_clock import SystemClock
from tests.support.connections import CA, client, client_context, own, referans_of, server_context
from tests.support.servers import Handler, RawServer, answer

pytestmark = pytest.mark.outside

STRAY = b"OK|2|STRAY-PIN|x"
CANCELLED = b"OK|3| |stray"


def chunked(body: bytes, behind: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n" + behind


SURPLUS = {
    "approved": answer(STRAY),
    "cancelled": answer(CANCELLED),
    "chunked": chunked(STRAY),
    "no content first": b"HTTP/1.1 204 No Content\r\n\r\n" + answer(STRAY),
    "not modified first": b"HTTP/1.1 304 Not Modified\r\n\r\n" + answer(STRAY),
    "a 1xx first": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(STRAY),
    "half a response": answer(STRAY)[:-5],
    "a bare body": STRAY,
    "to the end of the connection": b"HTTP/1.1 200 OK\r\n\r\n" + STRAY,
}


@dataclass(frozen=True)
class Move:
    """How a server answers one question: ``before`` and ``behind`` its own answer, cut into pieces
    at ``cuts``.
    """

    before: bytes
    behind: bytes
    form: str
    cuts: tuple[int, ...]
    late: bytes

    def pieces(self, reference: str) -> list[bytes]:
        body = own(reference)
        answers = {"length": answer(body), "chunked": chunked(body), "short": answer(body)}
        data = self.before + answers[self.form] + self.behind
        edges = [0, *sorted(cut % len(data) for cut in self.cuts), len(data)]
        return [data[a:b] for a, b in itertools.pairwise(edges)]


extra = st.sampled_from([b"", b"", *SURPLUS.values()])
informational = st.sampled_from(
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"]
)
moves = st.builds(
    Move,
    before=informational,
    behind=extra,
    form=st.sampled_from(["length", "chunked"]),
    cuts=st.tuples(st.integers(0, 400), st.integers(0, 400)),
    late=extra,
)


def plays(script: Sequence[Move]) -> Handler:
    """Answer by ``script``.

    What is ``late`` comes after the answer, while nothing or the next is asked.
    """
    turn = iter(script)

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        move = next(turn)
        for piece in move.pieces(referans_of(head)):
            writer.write(piece)
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        writer.write(move.late)

    return handler


async def ask_all(script: Sequence[Move], *, tls: bool) -> list[tuple[str, Answer]]:
    context = server_context(CA.issue_cert("localhost")) if tls else None
    async with RawServer(plays(script), tls=context) as server:
        znet = client(f"http{'s' if tls else ''}://localhost:{server.port}")
        told = []
        for n in range(len(script)):
            told.append((str(n), (await znet.ask(str(n))).answer))
            await asyncio.sleep(0)
        await znet.aclose()
    return told


@pytest.mark.long
@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(script=st.lists(moves, min_size=2, max_size=4), tls=st.booleans())
def test_no_question_is_answered_by_what_was_said_beside_another(
    script: list[Move], *, tls: bool
) -> None:
    for reference, told in asyncio.run(ask_all(script, tls=tls)):
        assert told == Completed(Pin(f"PIN-{reference}"), "tamam")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS.keys())
async def test_a_surplus_response_is_nobodys_answer(surplus: bytes, *, tls: bool) -> None:
    """The attack: two orders, the first one's answer with a second response in the same write."""
    script = [Move(b"", surplus, "length", (), b""), Move(b"", b"", "length", (), b"")]
    told = await ask_all(script, tls=tls)
    assert told == [(n, Completed(Pin(f"PIN-{n}"), "tamam")) for n in ("0", "1")]


async def test_thirty_orders_of_which_three_bring_a_surplus_all_get_their_own() -> None:
    strays = {3: answer(STRAY), 11: answer(CANCELLED), 20: answer(STRAY) + answer(CANCELLED)}

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        reference = referans_of(head)
        writer.write(answer(own(reference)) + strays.get(int(reference), b""))

    async with RawServer(handler) as server:
        znet = client(f"http://127.0.0.1:{server.port}")
        replies = await asyncio.gather(*[znet.ask(str(n)) for n in range(30)])
        await znet.aclose()
    assert [r.answer for r in replies] == [Completed(Pin(f"PIN-{n}"), "tamam") for n in range(30)]
    assert server.connections == 30
    assert all(b"\r\nconnection: close\r\n" in head.lower() for head in server.requests)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_what_is_said_before_the_question_is_not_its_answer(*, tls: bool) -> None:
    """A surplus response can wait on a fresh connection too, if the server speaks first."""
    context = server_context(CA.issue_cert("localhost")) if tls else None
    async with RawServer(plays([]), tls=context, greeting=answer(STRAY)) as server:
        request = httpx.Request("GET", f"http{'s' if tls else ''}://localhost:{server.port}/")
        wire = await FreshConnections(client_context()).connect(request.url, 5.0)
        while not wire.spoke_first:
            await asyncio.sleep(0.001)
        with pytest.raises(httpx.RemoteProtocolError, match="before it was asked"):
            await WireExchange(wire).ask(request)
        wire.close()
    assert server.requests == []


async def test_a_question_is_written_as_httpx_writes_it() -> None:
    """Its parts are prepared once, without httpx's objects; what is sent must be the same."""

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(own("1")))

    login, reference = ("k&d=1 ü", "p@s s/?#%+~"), "1&sifre=x"
    async with RawServer(handler) as server:
        url = f"http://localhost:{server.port}/pänel"
        znet = Znet(ZnetAccount(url, *login), FreshConnections(client_context()), SystemClock())
        assert (await znet.ask(reference)).answer.outcome == "completed"
        parameters = dict(zip(("kod", "sifre"), login, strict=True))
        async with httpx.AsyncClient(transport=FreshConnections(client_context())) as sender:
            await sender.get(
                f"{url}/servis/pin_kontrol.php",
                params={**parameters, "tahsilat_api_islem_id": reference},
                headers={
                    "User-Agent": "order-monitor",
                    "Accept": "text/plain, */*",
                    "Accept-Encoding": "identity",
                },
            )
    ours, theirs = (head.split(b"\r\n") for head in server.requests)
    assert ours[0] == theirs[0]
    assert ours[1].startswith(b"Host: localhost:")
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize(("token", "why"), [("a\r\nX: b", "protocol_error"), ("ü", "client_error")])
async def test_a_header_that_cannot_be_written_is_not_sent(token: str, why: str) -> None:
    async with RawServer(plays([])) as server:
        account = ClientApiAccount(f"http://127.0.0.1:{server.port}", token)
        api = ClientApi(account, FreshConnections(client_context()), SystemClock())
        for _ in range(2):
            assert (await api.ask("ID_1")).answer == Unreachable(why)
        assert (await api.balance()) == NoBalance(why)
        while server.is_busy:
            await asyncio.sleep(0)
    assert server.requests == []


@pytest.mark.parametrize("short_by", [1, 4, 9, 12])
async def test_a_length_that_is_too_short_makes_no_pin_out_of_half_of_one(short_by: int) -> None:
    """Cut before its third bar the answer is garbled; cut behind it the PIN is whole."""
    body = own("1")

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) - short_by}\r\n\r\n".encode() + body
        )

    async with RawServer(handler) as server:
        znet = client(f"http://127.0.0.1:{server.port}")
        told = (await znet.ask("1")).answer
        await znet.aclose()
    assert not isinstance(told, Completed) or told.pin == Pin("PIN-1")


async def tls_verdict(server_side: ssl.SSLContext, context: ssl.SSLContext) -> Answer:
    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(own("1")))

    async with RawServer(handler, tls=server_side) as server:
        znet = client(f"https://localhost:{server.port}", context)
        reply = await znet.ask("1")
        await znet.aclose()
    assert reply.requests == 1, "a certificate is no better at the second look"
    return reply.answer


def at(days: int) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


@pytest.mark.parametrize(
    ("reason", "certificate"),
    [
        ("certificate_expired", CA.issue_cert("localhost", not_before=at(-9), not_after=at(-1))),
        (
            "certificate_not_yet_valid",
            CA.issue_cert("localhost", not_before=at(2), not_after=at(9)),
        ),
        ("certificate_wrong_host", CA.issue_cert("elsewhere.example")),
        ("certificate_wrong_host", CA.issue_cert("10.0.0.7")),
        ("certificate_unknown_issuer", trustme.CA().issue_cert("localhost")),
    ],
)
async def test_a_certificate_that_is_refused_says_which_part_of_it(
    reason: str, certificate: trustme.LeafCert
) -> None:
    assert await tls_verdict(server_context(certificate), client_context()) == Blocked(
        reason, CERTIFICATE_WORDS[reason]
    )


def signed_by_itself(folder: Path) -> ssl.SSLContext:
    """What `openssl req -x509` makes, and many a panel serves."""
    key, certificate = folder / "key.pem", folder / "own.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "9",
        "-keyout",
        f"{key}",
        "-out",
        f"{certificate}",
    ]
    subprocess.run([*made, *name], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_certificate_signed_by_itself_is_told_and_can_be_trusted(tmp_path: Path) -> None:
    server = signed_by_itself(tmp_path)
    reason = "certificate_self_signed"
    assert await tls_verdict(server, trusting(None)) == Blocked(reason, CERTIFICATE_WORDS[reason])
    assert await tls_verdict(server, trusting(str(tmp_path / "own.pem"))) == Completed(
        Pin("PIN-1"), "tamam"
    )


async def test_a_panel_with_an_authority_of_its_own_is_trusted_by_its_file(tmp_path: Path) -> None:
    """``provider.ca_file``; the public authorities stay trusted beside it."""
    ca = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    server = server_context(ca.issue_cert("localhost"))
    assert (await tls_verdict(server, trusting(None))).outcome == "blocked"
    context = trusting(str(tmp_path / "ca.pem"))
    assert await tls_verdict(server, context) == Completed(Pin("PIN-1"), "tamam")
    assert len(context.get_ca_certs()) > 1


class Authority:
    """Certificates as `openssl` makes them: a root, an intermediate one, and what they sign."""

    def __init__(self, folder: Path, bits: int = 2048) -> None:
        self.folder = folder
        self.root = folder / "root.pem"
        self._openssl(
            "req -x509",
            f"-newkey rsa:{bits} -nodes -days 9 -keyout root.key -out root.pem -subj /CN=Root",
            CA_TRUE,
        )
        self.sign("middle", "root", "basicConstraints=critical,CA:TRUE")

    def _openssl(self, what: str, options: str, addition: str = "") -> None:
        words = [
            "openssl",
            *what.split(),
            *options.split(),
            *(["-addext", addition] if addition else []),
        ]
        subprocess.run(words, cwd=self.folder, check=True, capture_output=True)

    def sign(
        self, name: str, issuer: str, extensions: str, *, bits: int = 2048, digest: str = "sha256"
    ) -> None:
        (self.folder / "extensions").write_text(extensions, "ascii")
        self._openssl(
            "req", f"-newkey rsa:{bits} -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        )
        signing = f"-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial -extfile extensions"
        self._openssl("x509 -req", f"-in {name}.csr {signing} -days 9 -{digest} -out {name}.pem")

    def server(self, name: str, *with_it: str) -> ssl.SSLContext:
        """Return a server that sends ``name``'s certificate, and those ``with_it``."""
        chain = self.folder / "chain.pem"
        chain.write_bytes(
            b"".join((self.folder / f"{one}.pem").read_bytes() for one in (name, *with_it))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.load_cert_chain(chain, self.folder / f"{name}.key")
        return context


CA_TRUE = "basicConstraints=critical,CA:TRUE"
LEAF = "subjectAltName=DNS:localhost"
PUBLIC_LEAF = f"{LEAF}\nauthorityInfoAccess=caIssuers;URI:http://ca.example/middle.der"


def refused(reason: str) -> Blocked:
    return Blocked(reason, CERTIFICATE_WORDS[reason])


@pytest.mark.long
async def test_a_missing_intermediate_certificate_is_told_as_such(tmp_path: Path) -> None:
    """Public authorities' certificates name where their issuer's is.

    Given as ``ca_file``, it is no longer missed.
    """
    authority = Authority(tmp_path)
    authority.sign("leaf", "middle", PUBLIC_LEAF)
    trusts = trusting(str(authority.root))
    told = await tls_verdict(authority.server("leaf"), trusts)
    assert told == refused("certificate_missing_intermediate")
    assert isinstance(told, Blocked)
    assert "intermediate" in told.message
    assert await tls_verdict(authority.server("leaf", "middle"), trusts) == Completed(
        Pin("PIN-1"), "tamam"
    )
    trusts.load_verify_locations(tmp_path / "middle.pem")
    assert await tls_verdict(authority.server("leaf"), trusts) == Completed(Pin("PIN-1"), "tamam")


@pytest.mark.long
async def test_where_a_whole_chain_came_its_root_is_what_is_not_trusted(tmp_path: Path) -> None:
    """A lone certificate that names no issuer's may be of an authority of one's own: its words
    speak of both.
    """
    authority = Authority(tmp_path)
    authority.sign("leaf", "middle", PUBLIC_LEAF)
    assert await tls_verdict(authority.server("leaf", "middle"), trusting(None)) == refused(
        "certificate_unknown_issuer"
    )
    authority.sign("own", "middle", LEAF)
    told = await tls_verdict(authority.server("own"), trusting(str(authority.root)))
    assert told == refused("certificate_unknown_issuer")
    assert isinstance(told, Blocked)
    assert "intermediate" in told.message


@pytest.mark.long
async def test_a_key_that_is_too_small_is_told_as_such(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.sign("leaf", "root", LEAF, bits=1024)
    told = await tls_verdict(authority.server("leaf"), trusting(str(authority.root)))
    assert told == refused("certificate_key_too_small")
    authority.sign("old", "root", LEAF, digest="sha1")
    told = await tls_verdict(authority.server("old"), trusting(str(authority.root)))
    assert told == refused("certificate_weak_signature")


async def test_an_authoritys_key_that_is_too_small_is_told_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path, bits=1024)
    authority.sign("leaf", "root", LEAF)
    told = await tls_verdict(authority.server("leaf"), trusting(str(authority.root)))
    assert told == refused("certificate_key_too_small")


async def test_a_server_that_speaks_no_tls_is_told_apart_from_one_that_is_not_there() -> None:
    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(own("1")))

    async with RawServer(handler, greeting=b"220 hello\r\n") as server:
        znet = client(f"https://localhost:{server.port}")
        assert (await znet.ask("1")).answer == Unreachable("tls_failed")
        await znet.aclose()


async def test_an_address_that_leads_nowhere_is_passed_over_and_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused, or silent: the second address is asked, and the next time it is asked first."""

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(own("1")))

    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    loop, tried = asyncio.get_running_loop(), list[str]()
    create_connection = loop.create_connection

    async def noted(factory: Any, host: str, port: int) -> Any:
        tried.append(host)
        return await create_connection(factory, host, port)

    async with RawServer(handler) as server:
        monkeypatch.setattr(loop, "create_connection", noted)
        transport = FreshConnections(client_context(), two)
        znet = Znet(
            ZnetAccount(f"http://panel.example:{server.port}", "k", "s"), transport, SystemClock()
        )
        told = [(await znet.ask("1")).answer for _ in range(2)]
        await znet.aclose()
    assert told == [Completed(Pin("PIN-1"), "tamam")] * 2
    assert tried == ["127.0.0.2", "127.0.0.1", "127.0.0.1"]


async def test_a_stray_200_delivers_no_event() -> None:
    """The same thought elsewhere: a webhook's next delivery would count as taken, and its event as
    told.
    """
    seen: list[bytes] = []

    async def receiver(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        seen.append(await reader.readexactly(length))
        writer.write(
            answer(b"", status="200 OK") * 2 if len(seen) == 1 else answer(b"", status="503 Later")
        )

    async with (
        RawServer(receiver) as server,
        httpx.AsyncClient(transport=FreshConnections(client_context())) as sender,
    ):
        url = f"http://127.0.0.1:{server.port}/hook"
        codes = [
            (await sender.post(url, content=body)).status_code for body in (b"first", b"second")
        ]
    assert codes == [200, 503]
    assert seen == [b"first", b"second"]
