"""The generated web: seeded pages whose truth is known line by line.

A page is the main text of a small invented world (`world.py`) inside the boilerplate of a site (`phrases.py`), or junk.
A site is a seeded composition: which kinds of boilerplate it has, where, in which words, how its main text is set.
Train and test sites share single menu words and most of the main text's wordings, and nothing else, so a refiner that
does well on test sites has learnt what noise is like and not what one site looks like. For a page we know the verdict
(junk or not), the clean text, and the program that makes the one from the other.

Pure: no input or output; a page depends on (world_seed, sites, seed, block, row) only.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from prox_hpc.corpus import phrases
from prox_hpc.corpus.phrases import Sites, share
from prox_hpc.corpus.world import KINDS, Entity, Kind, Relation, World, capital, make_world, tell, vary
from prox_hpc.programs import KeepChunk, Normalize, Operation, RemoveLines, render

SITE_COUNT = {"train": 240, "test": 80}
JUNK_SHARE = 0.38
UNTOUCHED_SHARE = 0.10
"""Of the good pages: those of plain sites, with nothing to remove."""
FALSEHOOD_SHARE = 0.06
"""Of the sentences of spam: statements about the world, mostly false."""

SEPARATORS = (" | ", " · ", " / ", "  ", " - ", " • ", " ")
BULLETS = ("* ", "- ", "• ", "", "", "+ ")
TYPOGRAPHIC_APOSTROPHE = "\u2019"


@dataclass(frozen=True)
class Line:
    """A line as the page has it and as the clean text has it (None: it is noise)."""

    raw: str
    clean: str | None


@dataclass(frozen=True)
class Page:
    """A page with its truth. `normalizations`: what takes the noise out of the lines that stay, in order."""

    lines: tuple[Line, ...]
    normalizations: tuple[Normalize, ...]
    drop: bool
    site: str
    domain: str
    path: str
    template: str

    @property
    def text(self) -> str:
        return "\n".join(line.raw for line in self.lines)

    @property
    def clean(self) -> str:
        """The gold text; empty for junk."""
        return "\n".join(line.clean for line in self.lines if line.clean is not None)

    @property
    def program(self) -> str | None:
        """The gold chunk-stage program over the whole page; None for junk, which no chunk program should see.

        Operations stand in the order of the lines they concern, as someone reading down the page would write them.
        """
        if self.drop:
            return None
        placed: list[tuple[int, Operation]] = [(run.line_start, run) for run in _runs(self.lines)]
        for edit in self.normalizations:
            main = ((i, line.raw) for i, line in enumerate(self.lines) if line.clean is not None)
            place = next(i for i, raw in main if edit.source_str in raw)
            placed.append((place, edit))
        placed.sort(key=lambda item: item[0])
        return render([operation for _, operation in placed] or [KeepChunk()])


def _runs(lines: tuple[Line, ...]) -> Iterator[RemoveLines]:
    start = None
    for i, line in enumerate((*lines, Line("", ""))):
        if line.clean is None and start is None:
            start = i
        elif line.clean is not None and start is not None:
            yield RemoveLines(start, i - 1)
            start = None


@dataclass(frozen=True)
class Site:
    """What the pages of one site have in common; the phrases still hold their page slots."""

    sites: Sites
    name: str
    domain: str
    menu: tuple[str, ...]
    separator: str | None  # the menu on one line; None: one entry a line
    bullet: str
    main_bullet: str
    repeat_menu: bool
    phrases: dict[str, tuple[str, ...]]  # this site's wordings by kind of boilerplate
    top: tuple[str, ...]  # kinds of boilerplate in order, at their places
    under_title: tuple[str, ...]
    between: tuple[str, ...]
    bottom: tuple[str, ...]
    heading_rate: float
    sentences: tuple[int, int]  # per paragraph
    typographic: bool  # writes the typographic apostrophe
    plain: bool  # no boilerplate at all
    litter_rate: float
    inline_rate: float


BANKS = {
    "login": (phrases.LOGIN, 1, 2),
    "cookies": (phrases.COOKIES, 1, 2),
    "buttons": (phrases.COOKIE_BUTTONS, 1, 4),
    "byline": (phrases.BYLINES, 1, 2),
    "share": (phrases.SHARE, 2, 4),
    "advert": (phrases.ADVERTS, 2, 3),
    "newsletter": (phrases.NEWSLETTERS, 1, 3),
    "related_head": (phrases.RELATED_HEADS, 1, 2),
    "related": (phrases.RELATED, 2, 3),
    "comments": (phrases.COMMENTS, 2, 3),
    "author": (phrases.AUTHORS, 1, 2),
    "footer": (phrases.FOOTERS, 2, 4),
    "credit": (phrases.CREDITS, 1, 1),
    "menu_sentences": (phrases.MENU_SENTENCES, 3, 5),
}
"""Kind of boilerplate: its bank, and the least and most wordings that one site has of it."""


@cache
def make_site(sites: Sites, number: int) -> Site:
    """Site `number` of the train or test sites; the same in every corpus."""
    rng = random.Random(f"site/{sites}/{number}")
    name = f"{rng.choice(share(phrases.SITE_HEADS, sites))} {rng.choice(share(phrases.SITE_TAILS, sites))}"
    wordings = {}
    for kind, (bank, least, most) in BANKS.items():
        own = share(bank, sites)
        chosen = rng.sample(own, min(rng.randint(least, most), len(own)))
        wordings[kind] = tuple(vary(rng, phrase) for phrase in chosen)
    cookies_first = rng.random() < 0.6
    top = ["menu"] + ["login"] * (rng.random() < 0.3) + ["crumbs"] * (rng.random() < 0.4)
    rng.shuffle(top)
    bottom = [kind for kind in ("share", "author", "related", "comments", "newsletter") if rng.random() < 0.28]
    rng.shuffle(bottom)
    shortest = rng.randint(1, 2)
    return Site(
        sites=sites,
        name=name,
        domain=f"{rng.choice(('www.', '', ''))}{name.replace(' ', rng.choice(('', '-'))).lower()}{number}"
        f".{rng.choice(('example', 'example.org', 'example.com', 'test'))}",
        menu=tuple(rng.sample(phrases.MENU, rng.randint(3, 7))),
        separator=rng.choice(SEPARATORS) if rng.random() < 0.65 else None,
        bullet=rng.choice(BULLETS),
        main_bullet=rng.choice(BULLETS),
        repeat_menu=rng.random() < 0.3,
        phrases=wordings,
        top=(("cookies",) if cookies_first and rng.random() < 0.7 else ()) + tuple(top),
        under_title=tuple(k for k in ("byline", "share", "credit") if rng.random() < (0.6 if k == "byline" else 0.25)),
        between=tuple(kind for kind in ("advert", "related", "newsletter", "credit") if rng.random() < 0.28),
        bottom=(*bottom, "footer", *(("cookies",) if not cookies_first else ())),
        heading_rate=rng.choice((0.0, 0.3, 0.6)),
        sentences=(shortest, shortest + rng.randint(0, 2)),
        typographic=rng.random() < 0.3,
        plain=rng.random() < UNTOUCHED_SHARE,
        litter_rate=rng.choice((0.0, 0.1, 0.4)),
        inline_rate=rng.choice((0.0, 0.2, 0.6)),
    )


class _Slots(dict[str, str]):
    """Fills the `{slots}` of a phrase for one page: what stays the same on a page is stored, the rest is drawn."""

    def __init__(self, rng: random.Random, world: World, site: Site, kind: Kind):
        super().__init__(site=site.name, plural=kind.plural)
        self._rng, self._world, self._site = rng, world, site

    def __missing__(self, slot: str) -> str:
        return _FILLERS[slot](self._rng, self)

    def title(self) -> str:
        return _title(self._rng, self._rng.choice(self._world.entities))

    def url(self) -> str:
        rng = self._rng
        host = self._site.domain if rng.random() < 0.4 else f"{rng.choice(phrases.BRANDS).split()[0].lower()}.example"
        scheme = rng.choice(("https://", "http://", "http://www.")) if not host.startswith("www.") else ""
        word = rng.choice(phrases.SECTIONS)
        number = rng.randint(10, 9999)
        return scheme + host + rng.choice((f"/{word}/{number}", f"/{word}?id={number}", f"/p{number}.html"))


_FILLERS: dict[str, Callable[[random.Random, _Slots], str]] = {
    "n": lambda rng, slots: str(rng.randint(2, 80)),
    "digit": lambda rng, slots: str(rng.randint(1, 9)),
    "year": lambda rng, slots: str(rng.randint(2004, 2026)),
    "hour": lambda rng, slots: str(rng.randint(6, 23)),
    "minute": lambda rng, slots: f"{rng.randint(0, 59):02d}",
    "code": lambda rng, slots: f"{rng.randint(100, 999)}-{rng.randint(1000, 9999)}",
    "date": lambda rng, slots: f"{rng.randint(1, 28)} {rng.choice(phrases.MONTHS)} {rng.randint(2004, 2026)}",
    "person": lambda rng, slots: (
        f"{rng.choice(share(phrases.FIRST_NAMES, slots._site.sites))} "
        f"{rng.choice(share(phrases.LAST_NAMES, slots._site.sites))}"
    ),
    "brand": lambda rng, slots: rng.choice(share(phrases.BRANDS, slots._site.sites)),
    "section": lambda rng, slots: rng.choice(phrases.SECTIONS),
    "season": lambda rng, slots: rng.choice(phrases.SEASONS),
    "product": lambda rng, slots: rng.choice(phrases.PRODUCTS),
    "tag": lambda rng, slots: rng.choice(slots._world.entities).bare,
    "title": lambda rng, slots: slots.title(),
    "url": lambda rng, slots: slots.url(),
}


def _title(rng: random.Random, entity: Entity) -> str:
    return rng.choice(entity.kind.titles).format(e=entity.name, E=capital(entity.name))


# --- boilerplate ------------------------------------------------------------------------------------------------------


class _Boilerplate:
    """The noise lines of one page of a site, by kind."""

    def __init__(self, rng: random.Random, site: Site, slots: _Slots, entity: Entity, title: str):
        self.rng, self.site, self.slots, self.entity, self.title = rng, site, slots, entity, title

    def lines(self, kinds: tuple[str, ...]) -> list[str]:
        return [line for kind in kinds for line in getattr(self, f"_{kind}", lambda k=kind: self._some(k))()]

    def _some(self, kind: str, rate: float = 0.5) -> list[str]:
        """Most of the site's wordings of a kind, in the site's order; at least one."""
        own = self.site.phrases[kind]
        sure = self.rng.randrange(len(own))
        return [own[i].format_map(self.slots) for i in range(len(own)) if i == sure or self.rng.random() < rate]

    def _menu(self) -> list[str]:
        entries = list(self.site.menu)
        if self.rng.random() < 0.4:
            entries += self.rng.sample(self.site.phrases["menu_sentences"], 2)
        if self.rng.random() < 0.25:
            entries.append(self.entity.bare)
        if self.site.separator is None:
            return [self.site.bullet + entry for entry in entries]
        half = len(entries) // 2 if len(entries) > 8 else len(entries)
        rows = [entries[:half], entries[half:]]
        return [self.site.separator.join(row) for row in rows if row]

    def _crumbs(self) -> list[str]:
        gap = self.rng.choice((" > ", " » ", " / "))
        return [gap.join(("Home", capital(self.entity.kind.plural), self.title))]

    def _cookies(self) -> list[str]:
        buttons = self._some("buttons", 0.6)
        return self._some("cookies") + ([" ".join(buttons)] if self.rng.random() < 0.5 else buttons)

    def _share(self) -> list[str]:
        own = self._some("share")
        return [" ".join(own)] if self.site.separator and self.rng.random() < 0.4 else own

    def _related(self) -> list[str]:
        items = [item for _ in range(self.rng.randint(1, 2)) for item in self._some("related", 0.5)]
        return [self._some("related_head", 0.0)[0], *(self.site.bullet + item for item in items)]

    def _advert(self) -> list[str]:
        return self._some("advert", 0.3)

    def _credit(self) -> list[str]:
        return self._some("credit", 0.0)

    def _footer(self) -> list[str]:
        own = self._some("footer")
        return (self._menu() if self.site.repeat_menu else []) + own


# --- main text --------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the main text of one page: lists of lines, none of them noise."""

    def __init__(self, rng: random.Random, site: Site, world: World, slots: _Slots):
        self.rng, self.site, self.world, self.slots = rng, site, world, slots
        # One wording in seven of each fact, and every fourth sentence of prose, stands on test pages only.
        self.wordings = -1 if site.sites == "train" else None

    def article(self, entity: Entity) -> list[str]:
        """All five facts of an entity, some of them twice, between sentences of topical prose."""
        relations = list(range(len(entity.kind.relations)))
        self.rng.shuffle(relations)
        again = self.rng.sample(relations, self.rng.randint(2, 4))
        facts = [self._fact(entity, i) for i in relations + again]
        return self._paragraphs(entity.kind, self._mix(entity.kind, facts, self.rng.randint(4, 8)))

    def table(self, entity: Entity) -> list[str]:
        """A short article, and the facts as a list without a full stop at its lines' ends."""
        kind = entity.kind
        facts = [self._fact(entity, i) for i in self.rng.sample(range(5), 4)]
        lines = self._paragraphs(kind, self._mix(kind, facts, self.rng.randint(5, 8)))
        mark = self.site.main_bullet
        rows = [f"{mark}{kind.relations[i].label}: {entity.values[i]}" for i in self.rng.sample(range(5), 4)]
        head = [self.rng.choice(("In short", "Facts", "At a glance", f"{capital(entity.name)} in brief"))]
        place = self.rng.choice((0, len(lines)))
        return lines[:place] + head + rows + lines[place:]

    def comparison(self, entity: Entity) -> list[str]:
        """Two entities of a kind side by side."""
        others = [other for other in self.world.of_kind(entity.kind) if other is not entity]
        other = self.rng.choice(others)
        facts = []
        for i in range(5):
            facts += [self._fact(entity, i), self._fact(other, i)]
        return self._paragraphs(entity.kind, self._mix(entity.kind, facts, self.rng.randint(4, 6)))

    def questions(self, entity: Entity) -> list[str]:
        """Questions and answers, each on a line of its own or both on one."""
        kind = entity.kind
        facts = [self._fact(entity, i) for i in self.rng.sample(range(5), 3)]
        lines = self._paragraphs(kind, self._mix(kind, facts, self.rng.randint(4, 6)))
        together = self.rng.random() < 0.5
        for i in self.rng.sample(range(5), self.rng.randint(4, 5)):
            question = kind.relations[i].question.format(e=entity.name)
            answer = self._answer(kind.relations[i], entity, i)
            lines += [f"{question} {answer}"] if together else [question, answer]
        return lines

    def catalogue(self, entity: Entity) -> list[str]:
        """One relation over several entities of a kind, as a list of sentences."""
        kind = entity.kind
        i = self.rng.randrange(5)
        members = self.rng.sample(self.world.of_kind(kind), self.rng.randint(4, 6))
        rows = [self.site.main_bullet + self._fact(member, i) for member in members]
        facts = [self._fact(entity, j) for j in range(5) if j != i]
        return self._paragraphs(kind, self._mix(kind, facts, self.rng.randint(3, 5))) + rows

    def _fact(self, entity: Entity, relation: int) -> str:
        return tell(self.rng, entity, relation, wordings=self.wordings)

    def _answer(self, relation: Relation, entity: Entity, i: int) -> str:
        if self.rng.random() < 0.4:
            return f"{capital(entity.values[i])}."
        return self._fact(entity, i)

    def _mix(self, kind: Kind, facts: list[str], count: int) -> list[str]:
        """The facts with `count` sentences of prose strewn in; facts keep their order."""
        bank = [s for i, s in enumerate(kind.prose) if self.wordings is None or i % 4 != 3]
        sentences = list(facts)
        for sentence in self.rng.sample(bank, count):
            sentences.insert(self.rng.randint(0, len(sentences)), vary(self.rng, sentence))
        return sentences

    def _paragraphs(self, kind: Kind, sentences: list[str]) -> list[str]:
        lines: list[str] = []
        headings = [*kind.headings, *self.rng.sample(phrases.TRICKY_HEADINGS, 3)]
        while sentences:
            if lines and headings and self.rng.random() < self.site.heading_rate:
                lines.append(headings.pop(self.rng.randrange(len(headings))))
            size = self.rng.randint(*self.site.sentences)
            lines.append(" ".join(sentences[:size]))
            sentences = sentences[size:]
            if self.rng.random() < 0.07:
                lines.append(self.rng.choice(phrases.TRICKY_LINES).format_map(self.slots))
        return lines


GOOD = {"article": 5, "table": 2, "comparison": 2, "questions": 1.5, "catalogue": 1.5}


def _good_page(rng: random.Random, site: Site, world: World) -> Page:
    entity = rng.choice(world.entities)
    slots = _Slots(rng, world, site, entity.kind)
    template = rng.choices(list(GOOD), list(GOOD.values()))[0]
    title = _title(rng, entity)
    main = [title, *getattr(_Writer(rng, site, world, slots), template)(entity)]
    if site.typographic:
        main = [line.replace("'", TYPOGRAPHIC_APOSTROPHE) for line in main]
    kept = [Line(line, line) for line in main]
    edits: list[Normalize] = []
    if rng.random() < site.litter_rate:
        kept, edits = _litter(rng, kept)
    if rng.random() < site.inline_rate:  # after the litter, which would change the inserted string
        kept, edit = _inline(rng, slots, kept)
        edits.append(edit)
    lines = kept if site.plain else _surround(rng, site, _Boilerplate(rng, site, slots, entity, title), kept)
    path = f"/{entity.kind.plural}/{entity.bare.replace(' ', '-').lower()}-{rng.randint(1, 99999)}"
    return Page(tuple(lines), tuple(edits), False, site.name, site.domain, path, "plain" if site.plain else template)


def _surround(rng: random.Random, site: Site, noise: _Boilerplate, main: list[Line]) -> list[Line]:
    """The main text with the site's boilerplate above, under the title, in one or two gaps, and below."""
    body = list(main)
    for kind in site.between:
        if len(body) > 4 and rng.random() < 0.6:
            gap = rng.randint(3, len(body) - 1)
            body[gap:gap] = _as_noise(noise.lines((kind,)))
    return [
        *_as_noise(noise.lines(site.top)),
        body[0],
        *_as_noise(noise.lines(site.under_title)),
        *body[1:],
        *_as_noise(noise.lines(site.bottom)),
    ]


def _as_noise(lines: list[str]) -> list[Line]:
    return [Line(line, None) for line in lines]


def _inline(rng: random.Random, slots: _Slots, lines: list[Line]) -> tuple[list[Line], Normalize]:
    """Put a URL or an editing mark into one line, after a word or at its end."""
    at = rng.randrange(1, len(lines))
    text = lines[at].raw
    # two in three are URLs, as on real pages
    bank = phrases.INLINE[:6] if rng.random() < 0.67 else phrases.INLINE[6:]
    noise = rng.choice(bank).format_map(slots)
    spots = [i for i, char in enumerate(text) if char in ".,?" and i > 8] + [len(text)]
    spot = rng.choice(spots)
    changed = list(lines)
    changed[at] = Line(text[:spot] + noise + text[spot:], lines[at].clean)
    return changed, Normalize(noise, "")


def _litter(rng: random.Random, lines: list[Line]) -> tuple[list[Line], list[Normalize]]:
    """Damage the encoding of the main text: one kind of damage, wherever it applies."""
    text = "\n".join(line.raw for line in lines)
    damage: dict[str, str] = {}
    style = rng.choice(("mojibake", "entities", "spaces"))
    if style == "mojibake":
        damage = {c: c.encode().decode("cp1252") for c in sorted(set(text)) if not c.isascii()}
    elif style == "entities":
        names = {"'": "&#39;", TYPOGRAPHIC_APOSTROPHE: "&rsquo;", '"': "&quot;"}
        damage = {c: name for c, name in names.items() if c in text}
    if not damage:
        return _hard_spaces(rng, lines)
    changed = [Line("".join(damage.get(c, c) for c in line.raw), line.clean) for line in lines]
    return changed, [Normalize(bad, good) for good, bad in damage.items()]


def _hard_spaces(rng: random.Random, lines: list[Line]) -> tuple[list[Line], list[Normalize]]:
    """Write a few spaces of one to three lines as `&nbsp;`."""
    changed = list(lines)
    able = [i for i, line in enumerate(lines) if " " in line.raw.strip()]
    for at in rng.sample(able, min(len(able), rng.randint(1, 3))):
        words = changed[at].raw.split(" ")
        gap = rng.randrange(1, len(words))
        changed[at] = Line(" ".join(words[:gap]) + "&nbsp;" + " ".join(words[gap:]), changed[at].clean)
    return changed, [Normalize("&nbsp;", " ")]


# --- junk -------------------------------------------------------------------------------------------------------------


class _Junk:
    """The lines of junk pages, by template."""

    def __init__(self, rng: random.Random, site: Site, world: World):
        self.rng, self.site, self.world = rng, site, world
        self.entity = rng.choice(world.entities)
        self.slots = _Slots(rng, world, site, self.entity.kind)
        self.title = _title(rng, self.entity)
        self.noise = _Boilerplate(rng, site, self.slots, self.entity, self.title)

    def spam(self) -> list[str]:
        bank = share(phrases.SPAM, self.site.sites)
        self.slots["product"] = self.rng.choice(phrases.PRODUCTS)
        lines = [capital(f"{self.slots['product']} {self.rng.choice(('online', 'best price', 'for you', 'sale'))}")]
        for _ in range(self.rng.randint(6, 10)):
            size = self.rng.randint(1, 3)
            lines.append(" ".join(self._spam_sentence(bank) for _ in range(size)))
        return self._framed(lines, 0.4)

    def _spam_sentence(self, bank: tuple[str, ...]) -> str:
        if self.rng.random() < FALSEHOOD_SHARE:
            entity, relation = self.rng.choice(self.world.facts())
            return tell(self.rng, entity, relation, self.rng.choice(entity.kind.relations[relation].values))
        return vary(self.rng, self.rng.choice(bank)).format_map(self.slots)

    def links(self) -> list[str]:
        """A link farm: titles and addresses of pages on all subjects, without a text."""
        rows: list[str] = []
        for _ in range(self.rng.randint(10, 18)):
            title, url = self.slots.title(), self.slots.url()
            rows.append(self.rng.choice((title, title, title, url, f"{title} {url}")))
        return self._framed(["Links" if self.rng.random() < 0.5 else self.title, *rows], 0.5)

    def keywords(self) -> list[str]:
        """Words of the world in lists, stating nothing: cheap bait for search engines."""
        words = [entity.bare for entity in self.world.entities] + list(phrases.PRODUCTS)
        words += [value for kind in KINDS for relation in kind.relations for value in relation.values]
        words += ["cheap", "best", "near me", "free", "online", "download", "how to", "pictures"]
        gap = self.rng.choice((", ", " ", " | ", "; "))
        rows = [gap.join(self.rng.choices(words, k=self.rng.randint(5, 18))) for _ in range(self.rng.randint(7, 12))]
        return self._framed([self.title, *rows], 0.3)

    def salad(self) -> list[str]:
        """Sentences of the world with their words in any order: text spun by a machine."""
        words: list[str] = []
        for entity in self.rng.sample(self.world.entities, 3):
            words += " ".join(_Writer(self.rng, self.site, self.world, self.slots).article(entity)).split()
        self.rng.shuffle(words)
        rows: list[str] = []
        while words and len(rows) < 9:
            size = self.rng.randint(6, 30)
            rows.append(capital(" ".join(words[:size]).replace(".", "").lower()) + self.rng.choice((".", ".", "", "!")))
            words = words[size:]
        return self._framed([self.title, *rows], 0.5)

    def error(self) -> list[str]:
        """A site's own page that says that there is no page."""
        bank = share(phrases.ERRORS, self.site.sites)
        rows = [vary(self.rng, line).format_map(self.slots) for line in self.rng.sample(bank, self.rng.randint(2, 4))]
        return self._framed(rows, 1.0)

    def empty(self) -> list[str]:
        """Half empty: everything that a good page of the site has, and nothing where its text should be."""
        bank = share(phrases.STUBS, self.site.sites)
        rows = [vary(self.rng, line).format_map(self.slots) for line in self.rng.sample(bank, self.rng.randint(1, 2))]
        if self.rng.random() < 0.4:
            rows.insert(0, vary(self.rng, self.rng.choice(self.entity.kind.prose)))
        rows += self.noise.lines(("related", "comments"))
        return self._framed([self.title, *rows], 1.0)

    def listing(self) -> list[str]:
        """A front page: titles with teasers that break off before they say anything."""
        rows: list[str] = []
        for entity in self.rng.choices(self.world.entities, k=self.rng.randint(5, 8)):
            teaser = " ".join(vary(self.rng, self.rng.choice(entity.kind.prose)).split()[: self.rng.randint(4, 9)])
            rows += [_title(self.rng, entity), f"{teaser} ..."]
            if self.rng.random() < 0.5:
                rows.append(self.rng.choice(("Read more", "Continue reading", f"{self.slots['n']} comments")))
        return self._framed(rows, 0.8)

    def _framed(self, rows: list[str], rate: float) -> list[str]:
        """The rows within the site's boilerplate, with probability `rate`."""
        if self.rng.random() >= rate:
            return rows
        return self.noise.lines(self.site.top) + rows + self.noise.lines(self.site.bottom)


JUNK = {"spam": 4, "links": 2, "keywords": 2, "salad": 2, "error": 1.5, "empty": 2, "listing": 2}


def _junk_page(rng: random.Random, site: Site, world: World) -> Page:
    template = rng.choices(list(JUNK), list(JUNK.values()))[0]
    lines = getattr(_Junk(rng, site, world), template)()
    path = f"/{rng.choice(phrases.SECTIONS)}/{rng.randint(1, 99999)}"
    return Page(tuple(_as_noise(lines)), (), True, site.name, site.domain, path, template)


def make_page(sites: Sites, seed: int | str, block: int, row: int, *, world_seed: int = 0, junk: bool = True) -> Page:
    """Page `row` of block `block`; with `junk=False` always a good one (for held-out text)."""
    rng = random.Random(f"page/{world_seed}/{sites}/{seed}/{block}/{row}")
    site = make_site(sites, rng.randrange(SITE_COUNT[sites]))
    world = make_world(world_seed)
    if junk and rng.random() < JUNK_SHARE:
        return _junk_page(rng, site, world)
    return _good_page(rng, site, world)
