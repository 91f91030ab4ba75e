"""What each command answers to --json. The JSON schemas in `docs/schemas/client-cli` are made from these."""

from __future__ import annotations

import msgspec

from parallelix.client import answers
from parallelix.protocol.accounts import NewKeyView
from parallelix.protocol.receipts import Receipt
from parallelix.protocol.requests import AccountView, KeyList, KeyView, ModelList, Quote, RequestList, RequestView

SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "account": AccountView,
    "audit-verify": answers.AuditsAnswer,
    "ask": answers.AskEvent,
    "coordinator-grant": answers.GrantAnswer,
    "coordinator-key": answers.NewKeyAnswer,
    "coordinator-key-list": answers.IssuedKeys,
    "coordinator-key-revoke": answers.RevokedAnswer,
    "coordinator-run": answers.RunAnswer,
    "error": answers.ErrorAnswer,
    "keys": KeyList,
    "keys-create": NewKeyView,
    "keys-revoke": KeyView,
    "login": answers.LoginAnswer,
    "models": ModelList,
    "quote": Quote,
    "receipt-refresh": answers.RefreshAnswer,
    "receipt-show": Receipt,
    "receipt-verify": answers.VerifyAnswer,
    "records-export": answers.ExportAnswer,
    "records-verify": answers.RecordsAnswer,
    "request-cancel": RequestView,
    "request-get": RequestView,
    "request-list": RequestList,
    "version": answers.VersionAnswer,
    "wallet": answers.WalletAnswer,
    "wallet-balance": answers.BalanceAnswer,
    "wallet-earned": answers.EarnedAnswer,
}
"""One schema file for each name."""
