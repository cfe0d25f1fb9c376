"""The kinds of provider that can be asked. To add one: a folder next to this file, a line in
`KINDS`, its settings in `ProviderKeys`, and what others know of it in `order_monitor.core.login.PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from order_monitor.core.login import CLIENT_API, INTERNAL, ZNET
from order_monitor.providers.client_api.kind import CLIENT_API_KIND
from order_monitor.providers.client_api.settings import ClientApiSettings
from order_monitor.providers.kind import Kind
from order_monitor.providers.tenant.kind import TENANT_KIND
from order_monitor.providers.znet.kind import ZNET_KIND
from order_monitor.providers.znet.settings import ZnetSettings

KINDS: Final[Mapping[str, Kind]] = {
    ZNET: ZNET_KIND,
    CLIENT_API: CLIENT_API_KIND,
    INTERNAL: TENANT_KIND,
}


CONFIGURED: Final = tuple(name for name, kind in KINDS.items() if kind.configured is not None)
"""The kinds that the account in the settings may have."""


class ProviderKeys(ClientApiSettings, ZnetSettings):
    """The keys of the settings' ``provider`` that not every kind needs."""
