"""What is shown of usage and accounts."""

from __future__ import annotations

from datetime import datetime

from pixsim7_backend.plugins.auth import UserAccount

from . import rules
from .rules import Quotas, Usage
from .schemas import AdministeredAccount, AmountsView, QuotasView, RemainingView, UsageView


def usage(used: Usage, quotas: Quotas, *, now: datetime) -> UsageView:
    """Show usage against quotas."""
    return UsageView(
        day=used.day,
        resets_at=rules.next_utc_midnight(now),
        today=AmountsView.model_validate(used.today),
        total=AmountsView.model_validate(used.total),
        quotas=QuotasView.model_validate(quotas),
        remaining=RemainingView(
            daily_jobs=max(0, quotas.daily_jobs - used.today.jobs),
            assets=max(0, quotas.assets - used.total.assets),
            storage_bytes=max(0, quotas.storage_bytes - used.total.storage_bytes),
        ),
    )


def administered(account: UserAccount, quotas: Quotas) -> AdministeredAccount:
    """Show an account as admins see it."""
    return AdministeredAccount(**account.model_dump(), quotas=QuotasView.model_validate(quotas))
