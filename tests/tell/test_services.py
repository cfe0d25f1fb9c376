"""What a service's library says of a message is shown without any part of its address."""

from types import SimpleNamespace
from typing import Any

from order_monitor.tell.messages import Message
from order_monitor.tell.services import Service


class Refuses:
    """A library's sender that fails, and repeats what it was given, as some do."""

    def __init__(self, said: str) -> None:
        self.said = said

    def notify(self, **_: Any) -> Any:
        return Failed(self.said)


class Failed:
    """A result that is false, with the lines of the library's log."""

    def __init__(self, said: str) -> None:
        self.said = said

    def __bool__(self) -> bool:
        return False

    def logs(self) -> list[Any]:
        return [SimpleNamespace(level="WARNING", message=self.said)]


async def test_an_address_is_hidden_as_it_is_written_and_as_it_is_meant() -> None:
    """A password with an @ in it is written %40, and the library says it in plain."""
    url = "mailtos://someone:pass%40word@mail.example/?to=ops"
    sender: Any = Refuses(f"login pass@word refused for pass%40word at {url}")
    reason = await Service(1, url, sender).send(Message("title", "body"))
    assert "word" not in reason
    assert reason.startswith("login **** refused")
