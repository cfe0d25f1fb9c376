"""Another tenant as a kind of provider: the client API in the platform's dialect."""

from __future__ import annotations

import functools
from typing import Final

from order_monitor.providers.client_api.kind import ADVICE, open_client
from order_monitor.providers.kind import Kind
from order_monitor.providers.tenant.dialect import TENANT

TENANT_KIND: Final = Kind(
    "another tenant's client API", functools.partial(open_client, dialect=TENANT), ADVICE
)
