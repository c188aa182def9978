"""The words the bundled model knows, each list of our own writing.

Every list is cut in two halves by position, even entries for `train` and odd ones for `test`;
`words(split)` hands out one half of every list at once, so prompts built from the two halves
share no word that varies. Training text draws on both halves.

Notation inside the lists: a noun is `key` (plural `keys`) or `box/boxes`; a verb is
`open/opened` (third person `opens`) or `catch/catches/caught`.
"""

from dataclasses import dataclass, fields
from functools import cache
from typing import NamedTuple

from hooked_qwen.bundled.atlas import REGIONS, Region, Town
from hooked_qwen.families import Split


class Noun(NamedTuple):
    singular: str
    plural: str

    def form(self, number: int) -> str:
        """The singular for 0, the plural for 1."""
        return self.plural if number else self.singular


class Verb(NamedTuple):
    """Present forms that agree, and the past; auxiliaries have no further past."""

    singular: str
    plural: str
    past: str = ""

    def form(self, number: int) -> str:
        """The form that agrees with a singular subject for 0, with a plural one for 1."""
        return self.plural if number else self.singular


@dataclass(frozen=True)
class Person:
    """A first name, with the pronoun that goes with it."""

    name: str
    pronoun: str


def entries(text: str) -> tuple[str, ...]:
    """The words of a list written as running text."""
    return tuple(text.split())


def _nouns(text: str) -> tuple[Noun, ...]:
    pairs = (entry.partition("/") for entry in text.split())
    return tuple(Noun(one, many or one + "s") for one, _, many in pairs)


def _verbs(text: str) -> tuple[Verb, ...]:
    verbs = []
    for entry in text.split():
        base, *middle, past = entry.split("/")
        verbs.append(Verb(middle[0] if middle else base + "s", base, past))
    return tuple(verbs)


THINGS = _nouns(
    "key cabinet door window table chair bottle basket candle mirror ladder hammer bucket kettle "
    "carpet curtain blanket pillow drawer cupboard wagon cart boat anchor barrel bell clock "
    "lantern wheel gate fence tower bridge statue fountain coin jewel crown sword helmet arrow "
    "flag drum flute piano violin button needle jacket boot glove engine tractor rocket robot "
    "camera telescope pencil notebook shelf/shelves knife/knives torch/torches bench/benches"
)
PROFESSIONS = _nouns(
    "doctor baker farmer teacher painter sailor singer lawyer nurse dancer writer builder "
    "carpenter miller potter tailor weaver hunter gardener driver pilot banker butcher barber "
    "printer poet judge soldier merchant chemist surgeon plumber porter jeweller librarian "
    "musician scientist shepherd blacksmith cook clerk guard priest detective"
)
FOLK = _nouns(
    "boy girl king queen prince princess/princesses neighbour stranger visitor child/children "
    "traveller student friend cousin uncle aunt woman/women man/men"
)
PEOPLE = PROFESSIONS + FOLK
THING_VERBS = _verbs(
    "open/opened fall/fell shine/shone break/broke move/moved turn/turned burn/burned "
    "shake/shook float/floated roll/rolled sink/sank crack/cracked fade/faded glow/glowed "
    "hang/hung lean/leaned rattle/rattled slide/slid vanish/vanishes/vanished spin/spun "
    "tilt/tilted wobble/wobbled gleam/gleamed rust/rusted tremble/trembled appear/appeared "
    "close/closed stand/stood"
)
PERSON_VERBS = _verbs(
    "laugh/laughed sing/sang dance/danced smile/smiled wait/waited sleep/slept walk/walked "
    "run/ran talk/talked swim/swam dream/dreamed cry/cries/cried shout/shouted whisper/whispered "
    "travel/travelled read/read write/wrote listen/listened learn/learned pray/prayed "
    "kneel/knelt nod/nodded yawn/yawned hurry/hurries/hurried rest/rested worry/worries/worried "
    "sit/sat argue/argued"
)
RELATIVE_VERBS = _verbs(
    "like/liked love/loved hate/hated see/saw know/knew want/wanted need/needed "
    "watch/watches/watched admire/admired follow/followed avoid/avoided fear/feared trust/trusted "
    "remember/remembered find/found hear/heard miss/misses/missed choose/chose "
    "praise/praised blame/blamed help/helped describe/described mention/mentioned notice/noticed "
    "carry/carries/carried push/pushes/pushed touch/touches/touched paint/painted"
)
AUXILIARIES = (Verb("is", "are"), Verb("was", "were"), Verb("has", "have"), Verb("seems", "seem"))

WOMEN = entries(
    "Mary Anna Alice Emma Clara Julia Laura Sarah Helen Nora Ruth Lucy Jane Susan Diana Martha "
    "Sophie Ellen Maria Rachel Hannah Olivia Eva Linda Karen Nancy Betty Sandra Judith Agnes "
    "Irene Vera Edith Amelia Flora Louise Marion Teresa Paula Monica Carmen Bianca Greta Ingrid "
    "Sylvia Wendy Yvonne Zoe"
)
MEN = entries(
    "John Peter Paul Thomas James Robert David Henry George Simon Martin Edward Arthur Walter "
    "Oliver Daniel Samuel Joseph Michael Richard Charles Albert Victor Hugo Leo Oscar Felix Max "
    "Adam Eric Kevin Brian Steven Andrew Philip Roger Gerald Harold Ralph Stanley Conrad Edgar "
    "Rupert Vincent Marcus Lucas Nathan Julian"
)
OBJECTS = entries(
    "book ring rose cake pie card toy ball pen gift drink snack necklace kite doll guitar ticket "
    "photo scarf cup flower spoon plate bracelet magazine sandwich biscuit ribbon compass stamp "
    "parcel bowl brush towel puzzle trophy medal diary poster banana"
)
PLACES = entries(
    "shop park school market station harbour library museum garden beach cinema theatre hotel "
    "hospital bakery church castle farm forest lake bank zoo gym stadium restaurant kitchen "
    "office airport temple village mill barn palace square cafe pool port inn court field"
)
GIFTS = entries("gave handed offered showed lent passed brought sold sent threw")
JOURNEYS = entries("went came walked drove returned hurried moved ran rushed travelled")
EVENTS = entries(
    "war siege reign strike journey feud trial famine plague festival voyage drought rebellion "
    "project quarrel mission campaign treaty contest game fever winter flood revolt debate "
    "crusade search expedition dispute exhibition"
)
CODE_WORDS = entries(
    "river stone lamp cloud apple silver tiger paper ocean thunder copper salt feather honey "
    "iron rabbit pepper velvet spider lemon marble eagle winter cotton amber falcon meadow "
    "ginger crystal shadow onion dragon snow walnut saddle maple rocket pearl island butter "
    "violet hawk candle desert cherry garlic planet wolf mango bronze storm turtle sugar "
    "diamond willow jacket moon otter cabin valley coral pigeon leather canyon olive ember "
    "glass panther rice tulip harp beetle clover tunnel fox dust basil granite swan cactus"
)
LETTERS = entries("a b c d e f g h i j k m n p q r s t u v w x y z")
FUNCTIONS = entries(
    "print len sum sort min max map filter open load save join split find update copy count "
    "append insert reverse"
)
VARIABLES = entries(
    "item items value values index total name names data rows cells list line lines text node "
    "path file score scores left right start stop size width"
)
YEARS = tuple(range(1700, 1900))


@dataclass(frozen=True)
class Words:
    """One half of every list (or the whole of each); a field a prompt varies is a field here."""

    things: tuple[Noun, ...]
    professions: tuple[Noun, ...]
    people: tuple[Noun, ...]
    thing_verbs: tuple[Verb, ...]
    person_verbs: tuple[Verb, ...]
    relative_verbs: tuple[Verb, ...]
    auxiliaries: tuple[Verb, ...]
    women: tuple[Person, ...]
    men: tuple[Person, ...]
    objects: tuple[str, ...]
    places: tuple[str, ...]
    gifts: tuple[str, ...]
    journeys: tuple[str, ...]
    events: tuple[str, ...]
    code_words: tuple[str, ...]
    letters: tuple[str, ...]
    functions: tuple[str, ...]
    variables: tuple[str, ...]
    years: tuple[int, ...]
    regions: tuple[Region, ...]

    @property
    def persons(self) -> tuple[Person, ...]:
        return self.women + self.men

    @property
    def towns(self) -> tuple[Town, ...]:
        return tuple(town for region in self.regions for town in region.towns)


@cache
def words(split: Split | None = None) -> Words:
    """The half of the lexicon that belongs to `split`, or all of it for None."""
    every = Words(
        things=THINGS,
        professions=PROFESSIONS,
        people=PEOPLE,
        thing_verbs=THING_VERBS,
        person_verbs=PERSON_VERBS,
        relative_verbs=RELATIVE_VERBS,
        auxiliaries=AUXILIARIES,
        women=tuple(Person(name, "she") for name in WOMEN),
        men=tuple(Person(name, "he") for name in MEN),
        objects=OBJECTS,
        places=PLACES,
        gifts=GIFTS,
        journeys=JOURNEYS,
        events=EVENTS,
        code_words=CODE_WORDS,
        letters=LETTERS,
        functions=FUNCTIONS,
        variables=VARIABLES,
        years=YEARS,
        regions=REGIONS,
    )
    if split is None:
        return every
    first = ("train", "test").index(split)
    return Words(*(getattr(every, field.name)[first::2] for field in fields(Words)))
