"""What people do on a chain while its coordinator dies and its blocks are replaced: deposits, withdrawals of both
kinds, limits, stakes, and prompts in between. Each thing comes with another that could have come in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount

from bench.chain_stage import RATE, RESTLESS, STEADY, ChainStage
from bench.chain_world import TOKEN, ChainWorld, Sent
from bench.crash import at_rest as requests_at_rest
from bench.crash_clients import Clients
from bench.echo_runtime import MODEL
from parallelix.protocol.registry import MINIMUM_STAKE_WEI

DEPOSIT_TOKENS_MAX = 40
WITHDRAWAL_TOKENS_MAX = 15
STAKES_MAX = 12
"""An operator's purse holds twenty."""
UNUSED_CLEARANCES = 6
"""Of so many one is let expire, which takes a minute."""
PROMPT_SECONDS, ACT_SECONDS = 0.3, 0.1
REFUSALS = frozenset({402, 409, 429, 503})
"""How a coordinator may answer somebody whose money comes and goes, or while it stops."""


@dataclass(kw_only=True)
class Deeds:
    """One thing at a time that somebody does on the chain. Nobody waits for a block."""

    world: ChainWorld
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter[str])
    staking: bool = True
    """Not only money of requesters moves, but nodes come and go too."""

    def act(self) -> Sent:
        """Something at random, sent into the pool."""
        person = self.world.person(self.chance.choice(RESTLESS))
        deeds: list[tuple[int, Callable[[LocalAccount], Sent]]] = [
            (8, self._deposit),
            (3, self._request_withdrawal),
            (2, self._withdraw),
            (1, self._cancel_withdrawal),
            (1, self._set_limit),
            (int(self.staking), self._stake),
            (int(self.staking), self._unstake),
        ]
        (deed,) = self.chance.choices([each for _, each in deeds], weights=[weight for weight, _ in deeds])
        sent = deed(person)
        self.done[sent.what] += 1
        return sent

    def use_clearance(self, person: LocalAccount, clearance: dict[str, Any]) -> Sent:
        call = self.world.vault.withdraw_with_clearance(
            int(clearance["amount_wei"]),
            int(clearance["cumulative_spent_wei"]),
            clearance["nonce"],
            clearance["expiry"],
            clearance["v"],
            bytes.fromhex(clearance["r"][2:]),
            bytes.fromhex(clearance["s"][2:]),
        )
        sent = self.world.send(person, call, instead=self.world.vault.deposit(self._wei(DEPOSIT_TOKENS_MAX)))
        self.done[sent.what] += 1
        return sent

    def _wei(self, tokens_max: int) -> int:
        return self.chance.randint(1, tokens_max * TOKEN)

    def _deposit(self, person: LocalAccount) -> Sent:
        vault = self.world.vault
        amounts = self._wei(DEPOSIT_TOKENS_MAX), self._wei(DEPOSIT_TOKENS_MAX)
        return self.world.send(person, vault.deposit(amounts[0]), instead=vault.deposit(amounts[1]))

    def _request_withdrawal(self, person: LocalAccount) -> Sent:
        vault = self.world.vault
        amounts = self._wei(WITHDRAWAL_TOKENS_MAX), self._wei(WITHDRAWAL_TOKENS_MAX)
        return self.world.send(
            person, vault.request_withdrawal(amounts[0]), instead=vault.request_withdrawal(amounts[1])
        )

    def _withdraw(self, person: LocalAccount) -> Sent:
        return self.world.send(person, self.world.vault.withdraw(), instead=self.world.vault.cancel_withdrawal())

    def _cancel_withdrawal(self, person: LocalAccount) -> Sent:
        return self.world.send(person, self.world.vault.cancel_withdrawal(), instead=self.world.vault.withdraw())

    def _set_limit(self, person: LocalAccount) -> Sent:
        vault = self.world.vault
        limits = [self.chance.randint(100, 10_000) * TOKEN for _ in range(2)]
        return self.world.send(person, vault.set_daily_limit(limits[0]), instead=vault.set_daily_limit(limits[1]))

    def _stake(self, person: LocalAccount) -> Sent:
        if self.done["registerNode"] >= STAKES_MAX * len(RESTLESS):
            return self._deposit(person)
        locker = self.world.locker
        keys = [self.chance.randbytes(32) for _ in range(2)]
        return self.world.send(
            person,
            locker.register_node(MINIMUM_STAKE_WEI, 1, keys[0]),
            instead=locker.register_node(MINIMUM_STAKE_WEI + 1, 2, keys[1]),
        )

    def _unstake(self, person: LocalAccount) -> Sent:
        """Of a node that is the person's, or is not: then the contract refuses, which is a transaction all the same."""
        node_id = self.chance.randint(2, max(2, self.world.next_node_id - 1))
        return self.world.send(
            person, self.world.locker.request_unstake(node_id), instead=self.world.vault.deposit(self._wei(1))
        )


class Restless:
    """Requesters whose money comes and goes. `acknowledged` is what they were told, by Idempotency-Key."""

    def __init__(self, stage: ChainStage, chance: random.Random) -> None:
        self.deeds = Deeds(world=stage.world, chance=chance)
        self.acknowledged: defaultdict[str, list[str]] = defaultdict(list)
        self.answers: Counter[str] = Counter()
        self.problems: list[str] = []
        self.leaving: Sequence[str] = RESTLESS
        """Who asks for clearances."""
        self._stage = stage
        self._chance = chance
        self._number = 0
        self._http = httpx.AsyncClient(base_url=stage.url, trust_env=False, verify=False, timeout=10)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, acting: bool = True) -> None:
        """`acting`: deeds on the chain too, not only prompts and clearances."""
        works = [self._prompting(), self._clearing(), *([self._acting()] if acting else [])]
        self._tasks = [asyncio.create_task(work) for work in works]

    async def stop(self) -> None:
        """Raises what a task died of."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def aclose(self) -> None:
        await self.stop()
        await self._http.aclose()

    async def _acting(self) -> None:
        while True:
            self.deeds.act()
            await asyncio.sleep(self._chance.uniform(0, 2 * ACT_SECONDS))

    async def _prompting(self) -> None:
        while True:
            await self.prompt(self._chance.choice(RESTLESS))
            await asyncio.sleep(self._chance.uniform(0, 2 * PROMPT_SECONDS))

    async def prompt(self, name: str) -> None:
        self._number += 1
        key = f"restless-{self._number}"
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"{name} {key}"}], "max_tokens": 16}
        answer = await self._post(name, "/v1/requests", body, {"idempotency-key": key})
        if answer is not None and answer.status_code == 201:
            self.acknowledged[key].append(answer.json()["id"])

    async def _clearing(self) -> None:
        while True:
            await self.clear(self._chance.choice(self.leaving))
            await asyncio.sleep(self._chance.uniform(0, 2 * PROMPT_SECONDS))

    async def clear(self, name: str) -> None:
        """Asks for a clearance, and mostly uses it."""
        body = {"amount_wei": str(self._chance.randint(1, WITHDRAWAL_TOKENS_MAX * TOKEN))}
        answer = await self._post(name, "/v1/account/clearance", body, {})
        if answer is not None and answer.is_success and self._chance.randrange(UNUSED_CLEARANCES):
            self.deeds.use_clearance(self._stage.person(name), answer.json())

    async def _post(self, name: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response | None:
        """None while nobody answers."""
        try:
            answer = await self._http.post(
                path, json=body, headers={"authorization": f"Bearer {self._stage.keys[name]}", **headers}
            )
        except httpx.TransportError:
            return None
        self.answers[f"{path} {answer.status_code}"] += 1
        if not answer.is_success and answer.status_code not in REFUSALS:
            self.problems.append(f"{path}: {answer.status_code} {answer.text[:200]}")
        return answer


class Crowd:
    """Everybody: steady clients, whose every prompt must be answered, and restless people."""

    def __init__(self, stage: ChainStage, chance: random.Random) -> None:
        self.clients = Clients(stage.url, stage.keys[STEADY], rate=RATE, chance=chance)
        self.people = Restless(stage, chance)
        self._stage = stage

    def start(self, *, acting: bool) -> None:
        """`acting`: people also do things on the chain by themselves."""
        self.clients.start()
        self.people.start(acting=acting)

    async def stop(self) -> None:
        """Nobody begins anything; returns when what was begun is over. A coordinator has to be there."""
        await self.people.stop()
        await self.clients.stop()
        await requests_at_rest(self.clients)

    async def aclose(self) -> None:
        await self.people.aclose()
        await self.clients.aclose()

    @property
    def acknowledged(self) -> dict[str, list[str]]:
        return self.clients.acknowledged() | dict(self.people.acknowledged)

    @property
    def problems(self) -> list[str]:
        return [*self.people.problems, *(problem for intent in self.clients.intents for problem in intent.problems)]
