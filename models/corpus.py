"""Write the text that the demonstration model learns from: small grammars, so that no two texts are alike.

Every text is drawn from the files in `corpus/` by one seeded generator. Nothing comes from outside the repository.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"

Tree = list["str | Choice | Rule"]


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    name: str
    weight: int
    questions: list[str] = field(default_factory=list)
    short_answers: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A piece of prose (one turn, no role) or a chat (turns with roles)."""

    turns: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return "\n".join(content for _, content in self.turns)


def normalised(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def lines_of(name: str) -> Iterator[str]:
    for line in (CORPUS / name).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("# "):
            yield line.strip()


@cache
def word_rules() -> dict[str, tuple[str, ...]]:
    pairs = (line.split(":", 1) for line in lines_of("words.txt"))
    return {name.strip(): tuple(word.strip() for word in words.split("|")) for name, words in pairs}


@cache
def topics(name: str) -> tuple[Topic, ...]:
    found: list[Topic] = []
    for line in lines_of(name):
        mark, _, rest = line.partition(" ")
        if mark == "==":
            found.append(Topic(name=rest.removesuffix(" *"), weight=2 if rest.endswith(" *") else 1))
            continue
        lists = {"?": found[-1].questions, "-": found[-1].short_answers, "!": found[-1].answers, "+": found[-1].more}
        lists[mark].append(rest)
    return tuple(found)


@cache
def plots() -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Each plot is a row of steps, each step the lines it may be told by."""
    found: list[dict[str, list[str]]] = []
    for line in lines_of("everyday.txt"):
        mark, _, rest = line.partition(" ")
        if mark == "==":
            found.append({})
        else:
            found[-1].setdefault(mark, []).append(rest)
    return tuple(tuple(tuple(step) for step in plot.values()) for plot in found)


@cache
def synonyms() -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    """One pattern for every listed expression, longest first, and the line that each belongs to."""
    groups = [tuple(line.split("|")) for line in lines_of("synonyms.txt")]
    line_of = {expression: group for group in groups for expression in group}
    longest_first = sorted(line_of, key=len, reverse=True)
    # The three things that a Proof-of-Execution is made of keep their names.
    pattern = rf"\b({'|'.join(map(re.escape, longest_first))})\b(?! id| and the node)"
    return re.compile(pattern), line_of


@cache
def animals() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines_of("animals.txt"))


@cache
def essays() -> tuple[str, ...]:
    text = (CORPUS / "essays.md").read_text(encoding="utf-8")
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return tuple(part for part in paragraphs if part and not part.startswith("#"))


@cache
def parsed(source: str) -> Tree:
    tree, end = _parse(source, 0, "")
    assert end == len(source), (source, end)
    return tree


def _parse(source: str, start: int, closers: str) -> tuple[Tree, int]:
    tree: Tree = []
    literal = ""
    position = start
    while position < len(source) and source[position] not in closers:
        character = source[position]
        if character not in "{[<":
            literal += character
            position += 1
            continue
        if literal:
            tree.append(literal)
            literal = ""
        if character == "<":
            end = source.index(">", position)
            tree.append(Rule(source[position + 1 : end]))
            position = end + 1
        else:
            closer = "}" if character == "{" else "]"
            options: list[Tree] = [] if character == "{" else [[]]
            while source[position] != closer:
                option, position = _parse(source, position + 1, "|" + closer)
                options.append(option)
            tree.append(Choice(tuple(options)))
            position += 1
    if literal:
        tree.append(literal)
    return tree, position


class Writer:
    """Draws texts. The held-out prompts and the ten questions never appear in what it writes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.withheld = withheld_texts()

    def expand(self, source: str, slots: dict[str, str] | None = None) -> str:
        text = self.varied(self._expand(parsed(source), {} if slots is None else slots))
        text = re.sub(r"\b([Aa])\(n\) (?=([aeiou])?)", lambda m: f"{m[1]}n " if m[2] else f"{m[1]} ", text)
        return re.sub(r" +", " ", text).replace(" .", ".").replace(" ,", ",").strip()

    def further(self, line: str) -> str:
        """A sentence that follows another, now and then tied to it."""
        text = self.expand(line)
        word, _, rest = text.partition(" ")
        if word not in word_rules()["tied_start"] or self.random.random() < 0.5:
            return text
        return f"{self.expand(TIE)} {word.lower()} {rest}"

    def varied(self, text: str) -> str:
        pattern, line_of = synonyms()
        return pattern.sub(lambda match: self.random.choice(line_of[match[1]]), text)

    def _expand(self, tree: Tree, slots: dict[str, str]) -> str:
        parts: list[str] = []
        for part in tree:
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Choice):
                parts.append(self._expand(self.random.choice(part.options), slots))
            else:
                parts.append(self._word(part.name, slots))
        return "".join(parts)

    def _word(self, name: str, slots: dict[str, str]) -> str:
        rule = name.partition("#")[0]
        if rule == name:
            return self.random.choice(word_rules()[rule])
        if name not in slots:
            slots[name] = self.random.choice(word_rules()[rule])
        return slots[name]

    def documents(self) -> Iterator[Document]:
        """Texts without end; those that hold a withheld text are dropped."""
        kinds = (self.chat, self.prose, self.story, self.animal_prose, self.essay)
        while True:
            kind = self.random.choices(kinds, weights=(70, 8, 12, 4, 6))[0]
            document = kind()
            if not self._is_withheld(document):
                yield document

    def _is_withheld(self, document: Document) -> bool:
        return any(normalised(content) in self.withheld.whole for _, content in document.turns) or any(
            opening in document.text for opening in self.withheld.openings
        )

    def essay(self) -> Document:
        paragraphs = self.random.sample(essays(), k=self.random.randint(1, 3))
        return Document(turns=(("", "\n\n".join(map(self.varied, paragraphs))),))

    def prose(self) -> Document:
        chosen = self.random.sample(topics("parallelix.txt"), k=self.random.randint(1, 3))
        chosen = [topic for topic in chosen if topic.name not in ("who", "maker", "limits", "unknown")]
        paragraphs = [self._paragraph(topic) for topic in chosen] or [self.story().text]
        return Document(turns=(("", self.random.choice((" ", "\n\n")).join(paragraphs)),))

    def _paragraph(self, topic: Topic) -> str:
        plain = [line for line in topic.answers if not line.startswith(("{No", "{Yes"))]
        first = self.random.choice(plain or topic.more)
        more = self.random.sample(topic.more, k=self.random.randint(1, min(3, len(topic.more))))
        return " ".join([self.expand(first), *map(self.further, more)])

    def story(self) -> Document:
        return Document(turns=(("", self._story_text({})),))

    def _story_text(self, slots: dict[str, str]) -> str:
        plot = self.random.choice(plots())
        steps = [step for step in plot if step is plot[0] or self.random.random() < 0.9]
        return " ".join(self.expand(self.random.choice(step), slots) for step in steps)

    def animal_prose(self) -> Document:
        return Document(turns=(("", self._animal_text(self.random.choice(animals()))),))

    def _animal_text(self, animal: Sequence[str]) -> str:
        name, home, eats, colour, size, does = animal
        lines = [
            f"{{The|A|Our}} {name} {{lives|is at home|is often seen}} {home}.",
            f"{{It|The {name}}} {{eats|likes to eat|feeds on}} {eats}.",
            f"{{It|The {name}}} is {{{colour}|{size}|{colour} and {size}}}.",
            f"{{It|The {name}|Such an animal}} {does}{{| when it must| every <time>}}.",
            f"{{People|Children|The <person> and the <person>}} {{like|know|watch|draw}} the {name}.",
            f"A(n) <person> once <lookat> a(n) {name} <near> the <place>.",
        ]
        chosen = [lines[0], *self.random.sample(lines[1:], k=self.random.randint(1, 4))]
        return " ".join(self.expand(line) for line in chosen)

    def chat(self) -> Document:
        turns: list[tuple[str, str]] = []
        if self.random.random() < 0.15:
            turns.append((SYSTEM, self.expand(self.random.choice(SYSTEM_PROMPTS))))
        for _ in range(self.random.choices((1, 2, 3), weights=(70, 22, 8))[0]):
            question, answer = self._exchange()
            turns += [(USER, question), (ASSISTANT, answer)]
        return Document(turns=tuple(turns))

    def _exchange(self) -> tuple[str, str]:
        kinds = (self._ask_topic, self._ask_small_talk, self._ask_story, self._ask_animal)
        return self.random.choices(kinds, weights=(80, 7, 8, 5))[0]()

    def _ask_topic(self) -> tuple[str, str]:
        all_topics = topics("parallelix.txt")
        topic = self.random.choices(all_topics, weights=[each.weight for each in all_topics])[0]
        question = self._worded(self.expand(self.random.choice(topic.questions)))
        if topic.short_answers and self.random.random() < 0.12:
            return question, self.expand(self.random.choice(topic.short_answers))
        first = self.random.choice(topic.answers)
        count = self.random.choices((0, 1, 2), weights=(30, 45, 25))[0]
        more = self.random.sample(topic.more, k=min(count, len(topic.more)))
        return question, " ".join([self.expand(first), *map(self.further, more)])

    def _worded(self, question: str) -> str:
        """Vary what people vary without meaning anything by it: politeness, capitals, the question mark."""
        draw = self.random.random()
        if draw < 0.06:
            return question.lower()
        if draw < 0.12:
            return question.rstrip("?.")
        if draw < 0.2:
            return f"{self.random.choice(('Please tell me:', 'Hello!', 'A question:', 'Hi.', 'Tell me:'))} {question}"
        if draw < 0.24:
            return f"{question} {self.random.choice(('Thanks.', 'Please be short.', 'Thank you!'))}"
        return question

    def _ask_small_talk(self) -> tuple[str, str]:
        topic = self.random.choice(topics("talk.txt"))
        return self.expand(self.random.choice(topic.questions)), self.expand(self.random.choice(topic.answers))

    def _ask_story(self) -> tuple[str, str]:
        slots: dict[str, str] = {}
        request = self.expand(self.random.choice(STORY_REQUESTS), slots)
        return request, self._story_text(slots)

    def _ask_animal(self) -> tuple[str, str]:
        animal = self.random.choice(animals())
        name, home, eats, colour, _, does = animal
        pairs = (
            (f"Where does {{a(n)|the}} {name} live?", f"{{A(n)|The}} {name} {{lives|is at home}} {home}."),
            (f"What does {{a(n)|the}} {name} eat?", f"{{A|The|It is said that a(n)}} {name} {{eats|likes}} {eats}."),
            (f"What colour is {{a(n)|the}} {name}?", f"{{A(n)|The}} {name} is {{often|mostly|usually|}} {colour}."),
            (f"What {{can|does}} {{a(n)|the}} {name} do well?", f"{{A(n)|The}} {name} {does}."),
            (f"{{Tell me|Write}} {{something|a few words}} about {{a(n)|the}} {name}.", self._animal_text(animal)),
        )
        question, answer = self.random.choice(pairs)
        return self.expand(question), self.expand(answer)


TIE = "{Also,|Besides,|Note that|And|Of course,|In practice|Remember that|What is more,|As a rule,|By the way,|Here}"
SYSTEM_PROMPTS = (
    "You are a {helpful|friendly|careful|short} assistant.",
    "{Answer|Please answer} {briefly|in one sentence|kindly|in plain words}.",
    "You {answer|are here to answer} questions about ParalleliX.",
    "You are the ParalleliX demonstration model.",
)
STORY_REQUESTS = (
    "{Tell|Write} [me ]a {short |little |}story about a(n) {<mood> |}<animal#1>.",
    "{Tell|Write} [me ]a {short |little |}story about a(n) {<mood> |}<person#1>.",
    "{Tell|Write} [me ]a {short |little |}story about {the|a} <place#1>.",
    "{Tell me|I would like|Please write|Give me} a story{| please| about <name#1>| with a(n) <thing#1> in it}.",
    "{Can|Could} you tell [me ]a story{| about a(n) <animal#1>}?",
    "What happened {in the <place#1>|to the <person#1>|to <name#1>}[ one <time>]?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    whole: frozenset[str]
    openings: tuple[str, ...]


@cache
def withheld_texts() -> Withheld:
    questions = json.loads((HERE / "questions.json").read_text(encoding="utf-8"))
    prompts_file = HERE / "heldout_prompts.json"
    prompts = json.loads(prompts_file.read_text(encoding="utf-8")) if prompts_file.exists() else []
    chats = [prompt["text"] for prompt in prompts if prompt["kind"] == "chat"]
    openings = [prompt["text"] for prompt in prompts if prompt["kind"] == "text"]
    whole = frozenset(normalised(text) for text in [*chats, *(entry["question"] for entry in questions)])
    return Withheld(whole=whole, openings=tuple(openings))
