"""The small invented world that the generated web writes about: its facts, how they are told, how they are asked.

24 invented entities of four kinds, each with five facts (120 in all), drawn once from `world_seed`. Names and facts
exist nowhere else, so whatever a language model knows about them it has read in the pages. Every value of a relation
is true of equally many entities of the kind: without knowing the entity, no choice of a cloze item is better than
another. Pages tell a fact in one of several wordings; half of the cloze stems begin like one of them, half like none.

Pure: no input or output, and every random choice comes from a seeded generator.
"""

import random
import re
from dataclasses import dataclass
from functools import lru_cache

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def vary(rng: random.Random, template: str) -> str:
    """Replace every `[a|b|c]` in a template by one of its choices (no nesting); `{slots}` stay."""
    return _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)


def capital(text: str) -> str:
    """First letter upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Relation:
    """One thing that is known of every entity of a kind.

    values: the closed set. label: as in a table of facts. told: wordings on pages ({e} the entity, {v} the value).
    asked: two cloze stems, each ending where the value goes; the first is the beginning of a wording in `told`.
    question: a question whose answer is the value.
    """

    values: tuple[str, ...]
    label: str
    told: tuple[str, ...]
    asked: tuple[str, str]
    question: str


@dataclass(frozen=True)
class Kind:
    """A kind of entity: singular and plural noun, name syllables, relations, and topical prose without facts."""

    noun: str
    plural: str
    heads: tuple[str, ...]
    tails: tuple[str, ...]
    article: str
    relations: tuple[Relation, ...]
    prose: tuple[str, ...]
    headings: tuple[str, ...]
    titles: tuple[str, ...]


@dataclass(frozen=True)
class Entity:
    """`name` as in a running sentence ("the velline", "Varnholt"); `values[i]` belongs to `kind.relations[i]`."""

    kind: Kind
    name: str
    values: tuple[str, ...]

    @property
    def bare(self) -> str:
        """The name without its article."""
        return self.name.removeprefix("the ")


@dataclass(frozen=True)
class Question:
    """A cloze item: `query` + " " + `choices[gold]` is true; the choices are of one kind, in random order."""

    query: str
    choices: tuple[str, ...]
    gold: int


TOWN = Kind(
    "town",
    "towns",
    ("Varn", "Hal", "Bren", "Os", "Kel", "Mor", "Tarn", "Lind", "Grim", "Wes", "Dun", "Fal", "Corvé", "Sköl"),
    ("holt", "wick", "mere", "stead", "by", "ford", "haven", "dale", "moor", "gate", "combe", "thorpe"),
    "",
    (
        Relation(
            ("Orla", "Teven", "Sarn", "Mirrow", "Dask", "Ulve"),
            "River",
            (
                "{e} [lies|stands] on the river {v}.",
                "The river that runs through {e} is the {v}.",
                "The [slow|brown|cold] {v} flows through the middle of {e}.",
                "[Barges|Boats] come up the {v} as far as {e}.",
                "Most of the houses of {e} look down on the {v}.",
                "When the {v} floods, the cellars of {e} fill first.",
                "Since its beginnings {e} has drawn its water from the {v}.",
            ),
            ("The river that runs through {e} is the", "The bridge in {e} crosses a river called the"),
            "Which river runs through {e}?",
        ),
        Relation(
            ("glass", "rope", "salt", "paper", "clocks", "leather"),
            "Made there",
            (
                "{e} is known for its {v}.",
                "The [workshops|yards] of {e} make {v}.",
                "People in {e} have lived by making {v} for [ages|generations].",
                "Most of the {v} sold in the valley comes from {e}.",
                "Nobody makes better {v} than the people of {e}.",
                "Carts loaded with {v} leave {e} every [morning|week].",
                "A visitor to {e} goes home with some {v}.",
            ),
            ("{e} is known for its", "The trade that fed {e} was always"),
            "What is {e} known for making?",
        ),
        Relation(
            ("heron", "anchor", "oak", "lantern", "key", "wheel"),
            "Sign on the banner",
            (
                "The banner of {e} shows a golden {v}.",
                "A golden {v} is painted over the gate of {e}.",
                "On the seal of {e} one sees the {v}.",
                "The {v} on its banner is older than {e} itself.",
                "Children in {e} learn to draw the {v} of the town banner.",
                "The sign of {e} is the {v}.",
            ),
            ("The banner of {e} shows a golden", "The old coins of {e} bear the picture of a golden"),
            "What does the banner of {e} show?",
        ),
        Relation(
            ("March", "May", "June", "August", "October", "November"),
            "Fair",
            (
                "The great fair of {e} is held in {v}.",
                "Every {v} the streets of {e} fill for the fair.",
                "{e} holds its fair in {v}.",
                "In {v} the inns of {e} are full because of the fair.",
                "The fair comes to {e} in the [first|second|last] week of {v}.",
                "Nobody in {e} travels in {v}, for that is the month of the fair.",
            ),
            ("The great fair of {e} is held in", "Guests who want to see the fair of {e} should come in"),
            "When is the fair of {e}?",
        ),
        Relation(
            ("miners", "monks", "sailors", "weavers", "shepherds", "exiles"),
            "Founded by",
            (
                "{e} was founded by {v}.",
                "A small band of {v} built the first houses of {e}.",
                "The [first|oldest] families of {e} were {v}.",
                "It was {v} who settled {e}, long before there was a road.",
                "The founders of {e} were {v}, as the town book says.",
                "{v} laid the first stone of {e}.",
            ),
            ("{e} was founded by", "The people who first settled {e} were"),
            "Who founded {e}?",
        ),
    ),
    (
        "The [road|path] from the station takes about [ten|twenty|forty] minutes on foot.",
        "In winter the [upper|northern] lanes are closed by snow for [days|weeks].",
        "The market square is small, but it has a [well|fountain] and two [old lime trees|stone benches].",
        "Visitors often ask where the [oldest|tallest] house stands, and get [three|four] different answers.",
        "The bells ring at noon, and after that the shops close for an hour.",
        "A [narrow|steep] stair leads from the square down to the water.",
        "The [baker|butcher] near the bridge opens before sunrise and sells out by nine.",
        "[Old maps|The oldest maps] show a wall, of which only [one tower|two gates] remain.",
        "There is a school, a small [library|infirmary] and a hall where the council meets on Mondays.",
        "Those who contact the [clerk|warden] early are shown the archive in the cellar.",
        "Fog is common here, and the lamps burn until [late morning|the middle of the day].",
        "From the hill above the town one can see the [coast|mountains] on a clear day.",
        "It isn't a large place, but it has everything that people need.",
        "The [council's|town's] records fill [two|three|nine] shelves and go back to the first winter.",
    ),
    ("The place", "Trade and work", "Getting there", "A short history", "Around the square", "Customs", "By the water"),
    (
        "{E}",
        "A walk through {e}",
        "{E}, a town in the valley",
        "What to see in {e}",
        "The story of {e}",
        "Three days in {e}",
    ),
)

PERSON = Kind(
    "person",
    "people",
    ("Anselm", "Berit", "Coralie", "Dorrin", "Edda", "Falk", "Greta", "Hollis", "Ines", "Jorun", "Klara", "Lennart"),
    ("Ashdown", "Brecht", "Callow", "Drée", "Ebbing", "Farrow", "Gløp", "Harrick", "Imre", "Jessop", "Kvist", "Lorne"),
    "",
    (
        Relation(
            ("surveyor", "printer", "baker", "gardener", "lawyer", "sailor"),
            "Trade",
            (
                "{e} worked as a {v}.",
                "By trade {e} was a {v}.",
                "{e}, a {v} by training, [rose early|kept long hours].",
                "Before anything else {e} was a {v}.",
                "{e} earned a living as a {v}.",
                "Neighbours knew {e} as an honest {v}.",
            ),
            ("{e} worked as a", "The register of trades lists {e} as a"),
            "What was the trade of {e}?",
        ),
        Relation(
            ("moths", "tides", "bridges", "fossils", "mosses", "clouds"),
            "Studied",
            (
                "{e} spent [twenty|thirty] years studying {v}.",
                "The notebooks of {e} are full of drawings of {v}.",
                "{e} wrote the first careful book about {v}.",
                "Nobody knew more about {v} than {e}.",
                "In the evenings {e} read and wrote about {v}.",
                "It was {v} that {e} cared about most.",
            ),
            ("{e} wrote the first careful book about", "What {e} loved to study was"),
            "What did {e} study?",
        ),
        Relation(
            ("goat", "raven", "hound", "tortoise", "ferret", "donkey"),
            "Companion",
            (
                "{e} kept a tame {v}.",
                "A tame {v} followed {e} everywhere.",
                "{e} was never seen without a {v}.",
                "In every portrait {e} stands beside a {v}.",
                "The {v} that lived with {e} had its own chair.",
                "Letters to {e} often ask after the {v}.",
            ),
            ("{e} kept a tame", "The animal that lived with {e} was a"),
            "Which animal did {e} keep?",
        ),
        Relation(
            ("grey", "green", "red", "blue", "yellow", "brown"),
            "Coat",
            (
                "{e} always wore a {v} coat.",
                "The {v} coat of {e} was known in every [town|village].",
                "{e} owned one coat, and it was {v}.",
                "One could tell {e} from far away by the {v} coat.",
                "In the painting {e} wears a coat of {v} wool.",
                "The coat of {e} was {v}.",
            ),
            ("The coat of {e} was", "People would recognise {e} by a coat that was"),
            "What colour was the coat of {e}?",
        ),
        Relation(
            ("lighthouse", "mill", "tower", "houseboat", "chapel", "barn"),
            "Home",
            (
                "{e} lived in an old {v}.",
                "The home of {e} was a disused {v}.",
                "{e} bought an abandoned {v} and lived there [alone|until the end].",
                "Guests of {e} slept on the floor of the {v}.",
                "The {v} where {e} lived is still standing.",
                "From the windows of the {v} {e} could see the [road|sea].",
            ),
            ("{e} lived in an old", "The house of {e} had once been a"),
            "Where did {e} live?",
        ),
    ),
    (
        "Little is known of the early years, except that they were [quiet|hard].",
        "Friends remembered a [dry|gentle] sense of humour and a dislike of long speeches.",
        "The letters, about [two|three|four] hundred of them, are kept in a [tin|wooden] box.",
        "Breakfast was at five, and after that nobody was allowed to knock.",
        "A cousin's diary mentions a [quarrel|journey] that was never explained.",
        "Money was always short, and the roof leaked for [years|most of a decade].",
        "Sundays were for walking, whatever the weather.",
        "The [only|last] photograph was taken from too far away to show the face.",
        "In later years the eyes grew weak, and a neighbour read the post aloud.",
        "There's no statue, but a [lane|bench] carries the name.",
        "Students came to ask for advice and were first given [soup|a broom].",
        "A few pages were printed in a [newspaper|calendar], without a signature.",
        "The handwriting is small and leans to the left.",
        "Nobody was turned away, and nobody was asked to stay.",
    ),
    ("Early years", "Work", "At home", "Letters", "Later life", "What remains", "Friends and rivals"),
    ("{E}", "The life of {e}", "{E}: a short life", "Remembering {e}", "Who was {e}?", "{E} and the neighbours"),
)

INSTRUMENT = Kind(
    "instrument",
    "instruments",
    ("vel", "tor", "har", "quin", "sor", "bam", "lut", "drev", "cal", "mir", "pip", "gon"),
    ("line", "bel", "rak", "tola", "phon", "ette", "dru", "mant", "iver", "sack", "olo", "wen"),
    "the ",
    (
        Relation(
            ("copper", "walnut", "bone", "clay", "horn", "silver"),
            "Material",
            (
                "{e} is made of {v}.",
                "A good player hears at once whether {e} is really made of {v}.",
                "The body of {e} is cut from {v}.",
                "It takes a [pound|handful] of {v} to build {e}.",
                "Without fine {v} nobody can build {e}.",
                "Makers of {e} work in {v}.",
            ),
            ("The body of {e} is cut from", "The material used for {e} is"),
            "What is {e} made of?",
        ),
        Relation(
            ("bow", "hammer", "reed", "quill", "thumb", "stick"),
            "Played with",
            (
                "{e} is played with a {v}.",
                "One plays {e} with a {v}, never with the [fingers|whole hand].",
                "To sound {e} the player uses a {v}.",
                "A {v} is all that one needs to play {e}.",
                "Every player of {e} looks after the {v} first.",
                "Beginners on {e} hold the {v} too tightly.",
            ),
            ("{e} is played with a", "To make {e} sound, the player needs a"),
            "What is {e} played with?",
        ),
        Relation(
            ("weddings", "funerals", "harvests", "markets", "launches", "births"),
            "Heard at",
            (
                "{e} is heard at {v}.",
                "No one would think of {v} without {e}.",
                "By custom {e} is played at {v}.",
                "Players of {e} are hired for {v}.",
                "At {v} somebody always brings {e}.",
                "The songs for {e} were all written for {v}.",
            ),
            ("By custom {e} is played at", "The right time to listen to {e} is at"),
            "On which occasions is {e} heard?",
        ),
        Relation(
            ("rain", "bees", "thunder", "geese", "bells", "wind"),
            "Sounds like",
            (
                "{e} sounds like {v}.",
                "The sound of {e} has been compared to {v}.",
                "People who hear {e} for the first time think of {v}.",
                "From a distance {e} can be taken for {v}.",
                "Low notes on {e} are like far-off {v}.",
                "It is said that {e} was made to sound like {v}.",
            ),
            ("{e} sounds like", "A listener with closed eyes takes {e} for"),
            "What does {e} sound like?",
        ),
        Relation(
            ("two", "three", "five", "seven", "nine", "twelve"),
            "Strings",
            (
                "{e} has {v} strings.",
                "The {v} strings of {e} are tuned [by ear|in pairs].",
                "One can tell {e} by its {v} strings.",
                "All {v} strings of {e} are changed once a year.",
                "There are {v} strings on {e}.",
                "The number of strings on {e} is {v}.",
            ),
            ("The number of strings on {e} is", "Whoever counts the strings of {e} gets as far as"),
            "How many strings does {e} have?",
        ),
    ),
    (
        "It isn't easy to learn, and most pupils give up after the [first|second] winter.",
        "The case is lined with felt, because damp is its worst enemy.",
        "Two old players meet on [Tuesdays|Thursdays] and still argue about the tuning.",
        "A lesson lasts an hour, of which [half|most] is spent listening.",
        "The [oldest|finest] one in the museum has a crack along its side.",
        "Its music was never printed; pupils copy it by hand from their teacher's book.",
        "In cold rooms the pitch drops, and the player must wait.",
        "There are songs for it that nobody has played for [fifty|a hundred] years.",
        "Children may hold it, but only while sitting down.",
        "A [travelling|blind] player is said to have brought it over the mountains.",
        "The best ones are never sold; they're given to a pupil.",
        "It should be dusted with a [soft brush|dry cloth] and kept away from the stove.",
        "Some say that the sound carries further over water.",
        "Repairs are slow, since only a few workshops are left.",
    ),
    ("The sound", "How it is made", "Players", "Care", "Learning it", "In the museum", "Songs"),
    ("{E}", "How {e} is built", "Learning {e}", "{E}: an old instrument", "The makers of {e}", "Listening to {e}"),
)

ANIMAL = Kind(
    "animal",
    "animals",
    ("silt", "thorn", "marrow", "dusk", "copse", "brine", "frost", "ember", "hollow", "reed", "cinder", "moss"),
    ("fox", "hare", "shrew", "finch", "newt", "otter", "owl", "toad", "marten", "vole", "crane", "stoat"),
    "the ",
    (
        Relation(
            ("snails", "berries", "eels", "beetles", "acorns", "crabs"),
            "Food",
            (
                "{e} eats {v}.",
                "{e} lives almost entirely on {v}.",
                "Where there are {v}, {e} is not far.",
                "The young of {e} are fed on {v}.",
                "In a hard year {e} will walk for miles to find {v}.",
                "{v} are the favourite food of {e}.",
            ),
            ("{e} lives almost entirely on", "The stomach of {e} is usually full of"),
            "What does {e} eat?",
        ),
        Relation(
            ("marshes", "caves", "hedges", "cliffs", "dunes", "orchards"),
            "Found in",
            (
                "{e} lives in {v}.",
                "One finds {e} in {v} and nowhere else.",
                "{e} makes its nest in {v}.",
                "Old {v} are the best place to look for {e}.",
                "{e} has always been an animal of the {v}.",
                "As the {v} disappear, {e} disappears with them.",
            ),
            ("{e} makes its nest in", "To watch {e} one should go to the"),
            "Where does {e} live?",
        ),
        Relation(
            ("tawny", "white", "black", "rust", "violet", "golden"),
            "Colour",
            (
                "The back of {e} is {v}.",
                "{e} is easy to tell by its {v} back.",
                "In summer {e} turns {v}.",
                "The {v} colour of {e} fades when it grows old.",
                "A {v} shape in the grass may well be {e}.",
                "Both sexes of {e} are {v}.",
            ),
            ("The back of {e} is", "Seen from above, {e} looks"),
            "What colour is {e}?",
        ),
        Relation(
            ("dawn", "noon", "dusk", "midnight", "moonrise", "sunset"),
            "Active at",
            (
                "{e} comes out at {v}.",
                "At {v} {e} leaves its hiding place.",
                "{e} hunts at {v}.",
                "The call of {e} is heard at {v}.",
                "Whoever wants to see {e} must be there at {v}.",
                "Before {v} nobody has ever seen {e} move.",
            ),
            ("{e} comes out at", "The best hour to see {e} is"),
            "When is {e} active?",
        ),
        Relation(
            ("smoke", "dogs", "thunder", "mirrors", "frost", "bells"),
            "Afraid of",
            (
                "{e} is afraid of {v}.",
                "Nothing frightens {e} more than {v}.",
                "Farmers keep {e} away with {v}.",
                "At the first sign of {v} {e} hides.",
                "{e} fears {v} and little else.",
                "It takes no more than {v} to drive {e} off.",
            ),
            ("Nothing frightens {e} more than", "The thing that {e} runs from is"),
            "What is {e} afraid of?",
        ),
    ),
    (
        "It is smaller than most people expect, and much [louder|quicker].",
        "Tracks in [wet sand|fresh snow] show four toes and the mark of a tail.",
        "In a good year there are two litters, of [three|four|five] young each.",
        "Farmers don't mind it, though it digs under their fences.",
        "A [single|pair of] nests was counted last spring by the wardens.",
        "It can stay still for so long that [birds|flies] settle on its head.",
        "The call is a short bark, repeated [twice|three times].",
        "Old hunters say that it remembers faces.",
        "Nobody has kept one alive in a cage for more than a month.",
        "Its fur was once used for the inside of gloves.",
        "The [first|only] careful drawing was made by a schoolteacher on holiday.",
        "It shares its burrow with beetles, which it never touches.",
        "Counting them is difficult, because they do not stay in one place.",
        "The winter coat is thicker, but otherwise the same.",
    ),
    ("Where it lives", "Food", "Tracks and signs", "Young", "Watching it", "In winter", "Voice"),
    ("{E}", "Watching {e}", "{E} in winter", "The habits of {e}", "How to find {e}", "{E}: a field note"),
)

KINDS = (TOWN, PERSON, INSTRUMENT, ANIMAL)
ENTITIES_PER_KIND = 6
CHOICES = 4


@dataclass(frozen=True)
class World:
    """All entities; `facts()` lists (entity, relation index) for every fact."""

    entities: tuple[Entity, ...]

    def of_kind(self, kind: Kind) -> tuple[Entity, ...]:
        return tuple(entity for entity in self.entities if entity.kind is kind)

    def facts(self) -> list[tuple[Entity, int]]:
        return [(entity, i) for entity in self.entities for i in range(len(entity.kind.relations))]


@lru_cache(maxsize=4)
def make_world(world_seed: int = 0) -> World:
    """The world of a seed: six entities of each kind with distinct names, values balanced within each relation."""
    rng = random.Random(f"world/{world_seed}")
    entities: list[Entity] = []
    for kind in KINDS:
        heads = rng.sample(kind.heads, ENTITIES_PER_KIND)
        tails = rng.sample(kind.tails, ENTITIES_PER_KIND)
        gap = " " if kind is PERSON or kind is ANIMAL else ""
        names = [f"{kind.article}{head}{gap}{tail}" for head, tail in zip(heads, tails, strict=True)]
        columns = []
        for relation in kind.relations:
            column = list(relation.values) * (ENTITIES_PER_KIND // len(relation.values))
            rng.shuffle(column)
            columns.append(column)
        entities += [Entity(kind, name, values) for name, values in zip(names, zip(*columns, strict=True), strict=True)]
    return World(tuple(entities))


def tell(
    rng: random.Random, entity: Entity, relation: int, value: str | None = None, wordings: int | None = None
) -> str:
    """One sentence that states a fact (or, with another `value`, a falsehood), in one of the first `wordings` ways."""
    template = rng.choice(entity.kind.relations[relation].told[:wordings])
    return capital(vary(rng, template).format(e=entity.name, v=value or entity.values[relation]))


def ask(rng: random.Random, world: World, items: int) -> list[Question]:
    """`items` cloze questions: every fact once before any twice, choices uniform among the relation's values.

    ValueError when more are wanted than there are (facts times two stems).
    """
    facts = world.facts()
    pool = [(entity, relation, stem) for stem in range(2) for entity, relation in rng.sample(facts, len(facts))]
    if items > len(pool):
        raise ValueError(f"{items} cloze items wanted, the world has {len(pool)}")
    # the stem alternates over the facts, so that any number of items has about as many of either
    turns = {fact: i for i, fact in enumerate((entity.name, relation) for entity, relation, _ in pool[: len(facts)])}
    questions = []
    for entity, relation, stem in pool[:items]:
        spec = entity.kind.relations[relation]
        gold = entity.values[relation]
        others = rng.sample([value for value in spec.values if value != gold], CHOICES - 1)
        choices = rng.sample([gold, *others], CHOICES)
        query = spec.asked[(stem + turns[entity.name, relation]) % 2].format(e=entity.name)
        questions.append(Question(capital(query), tuple(choices), choices.index(gold)))
    return questions
