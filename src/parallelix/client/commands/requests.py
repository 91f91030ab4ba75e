"""`ask`, `quote`, `request get`, `request list`, `request cancel`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from parallelix import private_files
from parallelix.client import amounts, answers, audits
from parallelix.client import config as configs
from parallelix.client.commands.opening import asked, moment
from parallelix.client.errors import ConfigRefused, FileRefused, ended
from parallelix.client.events import Created, Delta, Ended, Progress, Restarted
from parallelix.client.sdk import chat
from parallelix.protocol.requests import REQUEST_BODY_BYTES_MAX, CreateRequest

if TYPE_CHECKING:
    from parallelix.client.sdk import Client
    from parallelix.protocol.requests import RequestView
    from parallelix.terminal import Console

HELD = {
    "no_capable_node": "no node can run this model now",
    "no_free_slot": "every node that can is busy",
    "no_node_fast_enough": "no node is fast enough for the deadline",
}
MARKS = {"completed": "✓", "failed": "✗", "expired": "✗", "cancelled": "!"}
SHOWN_MODELS_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was typed. Without a `prompt` it is read from standard input, without a `model` the only one is taken."""

    prompt: str | None
    model: str
    system: str
    max_tokens: int | None
    tier: int
    priority: str
    temperature: float | None = None
    seed: int | None = None
    deadline_seconds: float | None = None


def ask(console: Console, wanted: Wanted, *, url: str, save: Path | None, idempotency_key: str) -> int:
    prompt = _prompt(console, wanted)
    if save is not None and save.exists():
        raise FileRefused(f"{save}: exists already; name a new file")

    async def streamed(client: Client) -> None:
        body = await _body(client, wanted, prompt)
        asking = Asking(console)
        try:
            async with aclosing(client.stream(body, idempotency_key=idempotency_key or None)) as events:
                async for event in events:
                    asking.take(event)
        except asyncio.CancelledError:
            asking.give_up()
            raise
        if asking.is_complete and save is not None:
            kept = await client.keep(body, asking.request_id)
            _write_new(save, msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
        asking.close(save)

    asked(console, streamed, url=url)
    return 0


class Asking:
    """Prints one request as it goes: at once on a terminal, and into a pipe only text that no restart can void."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text: list[str] = []
        self._shown = ""
        self._end: Ended | None = None
        self.request_id = ""

    @property
    def is_complete(self) -> bool:
        return self._end is not None and self._end.state == "completed"

    def take(self, event: Created | Progress | Delta | Restarted | Ended) -> None:
        match event:
            case Created():
                self.request_id = event.request_id
                self._line("created")
            case Progress():
                self._line(event.kind, attempt=event.attempt, reason=event.reason)
                waits = HELD.get(event.reason, event.reason)
                if not self._text:
                    self._console.live(f"held: {waits}" if event.kind == "held" else f"{event.kind} …")
            case Delta():
                self._text.append(event.text)
                self._line("delta", attempt=event.attempt, text=event.text)
                self._show(event.text)
            case Restarted():
                self._text.clear()
                self._line("restarted", attempt=event.attempt)
                if self._shown:
                    self._console.stream("\n")
                    self._console.note("the node was lost: what you read so far is void, another one begins anew")
                    self._shown = ""
            case Ended():
                self._end = event

    def give_up(self) -> None:
        """After Ctrl-C, which into a pipe says nothing."""
        if not self._console.interactive or not self.request_id:
            return
        self._console.clear_live()
        if self._shown and not self._shown.endswith("\n"):
            self._console.stream("\n")
        self._console.note(f"given up; what was done is charged: parallelix request get {self.request_id}")

    def close(self, saved: Path | None) -> None:
        """The last line. Raises `RequestEnded` when there is no answer."""
        end, text = self._end, "".join(self._text)
        assert end is not None
        if self._console.interactive:
            self._console.stream("" if text.endswith("\n") or not self._shown else "\n")
        elif self.is_complete:
            self._console.stream(text if text.endswith("\n") else text + "\n")
        self._console.clear_live()
        self._line(
            end.state,
            reason=end.reason,
            text=text,
            finish_reason=end.finish_reason or "",
            usage=end.usage,
            charge_wei=end.charge_wei,
            record_hash=end.record_hash or "",
            kept_in=str(saved) if saved is not None and self.is_complete else "",
        )
        if not self.is_complete or end.usage is None:
            raise ended(end.request_id, state=end.state, reason=end.reason, charge_wei=end.charge_wei)
        tokens = f"{end.usage.prompt_tokens} + {end.usage.completion_tokens} tokens"
        cut = " · cut at its longest" if end.finish_reason == "length" else ""
        self._console.remark(f"{tokens} · {amounts.shown(end.charge_wei)}{cut}")
        self._console.remark(f"request {end.request_id}")
        if saved is not None:
            self._console.remark(f"check it: parallelix receipt verify {saved}")

    def _show(self, text: str) -> None:
        if self._console.interactive:
            self._shown += text
            self._console.stream(text)

    def _line(self, name: Any, **fields: Any) -> None:
        self._console.value(answers.AskEvent(event=name, request_id=self.request_id, **fields))


def quote(console: Console, wanted: Wanted, *, url: str) -> None:
    prompt = _prompt(console, wanted)

    async def quoted(client: Client) -> Any:
        return await client.quote(await _body(client, wanted, prompt))

    found = asked(console, quoted, url=url)
    columns = 10
    console.heading(f"quote for {found.model}")
    tokens = f"up to {found.prompt_tokens_max} prompt tokens and {found.completion_tokens_max} of answer"
    console.fact("at most", amounts.shown(found.hold_wei), label_columns=columns)
    console.fact("for", tokens, label_columns=columns)
    console.fact("you have", amounts.shown(found.available_wei), label_columns=columns)
    console.fact("nodes", f"{found.capable_nodes} can run it, {found.free_slots} slots free", label_columns=columns)
    if found.waiting:
        console.fact("waiting", f"{found.waiting} requests before it", label_columns=columns)
    if found.estimate_seconds is not None:
        console.fact("answer in", f"about {found.estimate_seconds:g} s", label_columns=columns)
    if not found.affordable:
        console.warn("not enough credits: ask for fewer --max-tokens, or have credits granted")
    if not found.capable_nodes:
        console.warn("no node can run it now: a request would wait for one")
    console.value(found)


def get(console: Console, request_id: str, *, url: str) -> None:
    found = asked(console, lambda client: client.get(request_id), url=url)
    _print_request(console, found)
    if found.result is not None and found.result.text:
        console.heading("answer")
        console.plain(found.result.text)
    elif found.sealed_result is not None:
        console.warn("the answer is sealed to the key that you gave; --json has it")
    console.value(found)


def show_list(console: Console, *, state: str, limit: int, cursor: str, url: str) -> None:
    found = asked(console, lambda client: client.list(state=state or None, limit=limit, cursor=cursor or None), url=url)
    console.heading("requests, newest first")
    for each in found.data:
        console.plain(f"{MARKS.get(each.state, '●')} {each.id}")
        console.plain(f"  {_summary(each)}")
    if not found.data:
        console.plain('  none yet; ask something: parallelix ask "Hello"')
    if found.next_cursor:
        console.remark(f"more: parallelix request list --cursor {found.next_cursor}")
    console.value(found)


def cancel(console: Console, request_id: str, *, url: str) -> None:
    found = asked(console, lambda client: client.cancel(request_id), url=url)
    if found.state == "cancelled":
        console.done(f"cancelled; charged {amounts.shown(found.charge_wei)}")
    elif found.finished_at is None:
        console.done("ends as soon as its node has said how far it came")
    else:
        console.warn(f"was over already: {found.state}")
    console.value(found)


def _print_request(console: Console, view: RequestView) -> None:
    console.heading("request")
    console.plain(f"{MARKS.get(view.state, '●')} {view.id}")
    console.pair("state", view.state + (f": {view.reason}" if view.reason else ""))
    if view.held is not None:
        waits = f"; about {view.held.estimate_seconds:g} s" if view.held.estimate_seconds is not None else ""
        console.pair("held", f"{HELD.get(view.held.reason, view.held.reason)}; place {view.held.position + 1}{waits}")
    console.pair("model", f"{view.model}, tier {view.hardware_tier} or above, {view.priority}")
    console.pair("created", moment(view.created_at))
    if view.finished_at is not None:
        seconds = (view.finished_at - view.created_at) / 1000
        console.pair("finished", f"{moment(view.finished_at)}, after {seconds:.1f} s and {_times(view.attempts)}")
    if view.usage is not None:
        console.pair("tokens", f"{view.usage.prompt_tokens} prompt, {view.usage.completion_tokens} answer")
    if view.finished_at is None:
        console.pair("held credits", amounts.shown(view.hold_wei))
    else:
        settled = "" if view.settled else ", posted once its batch is confirmed"
        console.pair("charge", amounts.shown(view.charge_wei) + settled)
    if view.audit != "off":
        console.pair("audit", audits.said(view.audit, view.audit_reason, view.refunded_wei))
    if view.record_hash is not None:
        console.pair("record", view.record_hash)


def _summary(view: RequestView) -> str:
    parts = [view.state, view.model[:24], moment(view.created_at)]
    if view.usage is not None:
        parts.append(f"{view.usage.prompt_tokens}+{view.usage.completion_tokens} tokens")
    elif view.held is not None:
        parts.append(HELD.get(view.held.reason, view.held.reason))
    return "  ".join(parts)


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _prompt(console: Console, wanted: Wanted) -> str:
    """Raises `ConfigRefused` for nothing to ask, or more than a request may hold."""
    if wanted.prompt is not None and wanted.prompt != "-":
        text = wanted.prompt
    else:
        if sys.stdin.isatty():
            console.remark("the prompt, then Ctrl-D:")
        raw = sys.stdin.buffer.read(REQUEST_BODY_BYTES_MAX + 1)
        if len(raw) > REQUEST_BODY_BYTES_MAX:
            raise ConfigRefused(f"prompt: more than {REQUEST_BODY_BYTES_MAX} bytes on standard input; shorten it")
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise ConfigRefused("prompt: standard input is not UTF-8 text") from error
    if not text.strip():
        raise ConfigRefused('prompt: is empty; give it as an argument or on standard input: parallelix ask "Hello"')
    return text


async def _body(client: Client, wanted: Wanted, prompt: str) -> CreateRequest:
    priority: Any = wanted.priority
    return chat(
        prompt,
        model=wanted.model or configs.load_file().model or await _only_model(client),
        system=wanted.system,
        max_tokens=wanted.max_tokens,
        temperature=wanted.temperature,
        seed=wanted.seed,
        hardware_tier=wanted.tier,
        priority=priority,
        deadline_seconds=wanted.deadline_seconds,
    )


async def _only_model(client: Client) -> str:
    names = [model.id for model in (await client.models()).data]
    if len(names) == 1:
        return names[0]
    if not names:
        raise ConfigRefused("model: the coordinator offers none; whoever runs it lists them in its catalogue.toml")
    raise ConfigRefused(f"model: name one by --model: {', '.join(names[:SHOWN_MODELS_MAX])}")


def _write_new(path: Path, data: bytes) -> None:
    """Readable by this user alone: it holds a prompt and an answer. Raises `FileRefused`."""
    try:
        private_files.create(path, data)
    except OSError as error:
        raise FileRefused(f"{path}: cannot be written ({error.strerror}); name another file") from error
