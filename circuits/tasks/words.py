"""Everyday words for the prompt sets, each list of our own writing.

Every list is cut in two by position, even entries for `train` and odd ones for `test`
(`choice.Choice`); no word is in two lists that one task draws on. `key` stands for `key keys`
and `box/boxes` for an odd plural; of a verb the plural form comes first, as in `watch/watches`.
"""


def entries(text: str) -> tuple[str, ...]:
    """The words of a list written as running text."""
    return tuple(text.split())


def _with_s(text: str) -> list[tuple[str, str]]:
    """Each word and the word with s, or with the ending written after a stroke."""
    return [(one, many or f"{one}s") for one, _, many in (e.partition("/") for e in text.split())]


THINGS = tuple(
    _with_s("""
    key door book table picture letter car house window box/boxes bird road boat machine garden
    river chair lamp clock phone camera computer bag bottle cup plate knife/knives glass/glasses
    ring coin card ticket map flag gift toy ball shirt shoe hat coat dress/dresses bed desk wall
    roof floor bridge tower church/churches school shop store hotel farm tree flower leaf/leaves
    stone rock mountain hill lake island beach/beaches field forest cloud star planet horse dog cat
    cow chicken egg apple banana cake pie sandwich/sandwiches meal dish/dishes tool engine wheel
    truck bus/buses train plane ship bike vehicle gun sword shield rope chain button screen
    keyboard disk cable battery/batteries photo painting song movie film story/stories poem novel
    magazine newspaper report document file folder page note message email sign poster symbol
    statue building office room kitchen gate fence path street tunnel pipe tank barrel basket
    blanket pillow towel curtain mirror candle pen pencil brush/brushes robot drone device sensor
    circuit motor pump filter valve lens/lenses idea plan project model product gadget album game
    guitar drum bell helmet jacket belt boot sock pocket wallet mask costume rug carpet plant seed
    fruit vegetable tomato/tomatoes potato/potatoes carrot onion berry/berries nut grape cookie
    cabin temple museum library/libraries hospital factory/factories station airport bank market
    restaurant theater park hammer piano violin whistle castle palace lemon stove oven necklace
    """)
)

PEOPLE = tuple(
    _with_s("""
    teacher student author player farmer doctor friend king officer driver writer singer actor
    artist lawyer judge nurse soldier guard pilot sailor captain manager worker engineer scientist
    professor reporter editor painter dancer father mother brother sister son daughter cousin
    parent child/children boy girl man/men woman/women baby/babies lady/ladies neighbor guest
    visitor tourist customer client buyer seller owner user member leader president minister
    senator governor director producer designer architect builder chef hunter thief/thieves
    criminal prisoner victim witness/witnesses detective agent spy/spies hero/heroes villain prince
    queen knight wizard witch/witches monk priest bishop saint athlete runner coach/coaches trainer
    critic expert consultant analyst banker broker trader developer programmer hacker researcher
    physicist historian philosopher poet musician patient surgeon therapist counselor volunteer
    citizen voter immigrant refugee dealer assistant partner colleague boss/bosses employee
    employer pupil scholar graduate teenager kid adult stranger enemy/enemies ally/allies rival
    opponent candidate uncle aunt mayor carpenter baker waiter dentist clerk princess/princesses
    """)
)

VERBS = tuple(
    (many, one)
    for one, many in _with_s("""
    like love hate see need remember miss/misses prefer describe mention praise find own use buy
    sell recommend ignore bring choose examine study/studies discover protect clean make
    push/pushes touch/touches carry/carries enjoy consider defend follow watch/watches collect
    avoid approach/approaches steal admire
    """)
)
"What people do to things and to people: the form after one, then the form after many."

ADJECTIVES = entries("""
    old new small big large red blue green black white brown yellow heavy light cheap expensive
    beautiful ugly strange famous broken dirty dark bright strong weak long short tall wide narrow
    thick thin soft hard smooth rough modern ancient simple fancy rare common popular perfect huge
    tiny pretty lovely plain golden silver wooden plastic
""")

ROLES = entries("""
    friend cook dancer singer teacher student writer doctor nurse lawyer player driver leader
    neighbor guest listener artist painter runner coach scientist engineer musician poet parent
    worker manager speaker reader actor swimmer planner thinker helper judge host storyteller
    gardener baker photographer colleague teammate designer partner boss critic chef trainer
""")
"What he or she may be, in a word that says nothing of which."

SHOPS = entries("""
    store park school library garden station museum market theater hospital office restaurant
    kitchen beach church hotel airport bank bakery cafe farm zoo gym pool mall club
""")

GIFTS = entries("""
    drink book ring ball letter kiss gift coin card ticket pen map phone cup hat key flower cookie
    bottle basket towel camera note cake bag toy
""")

EVENTS = entries("""
    war journey conflict campaign expedition reign famine strike voyage dispute plague drought
    truce alliance debate crisis trial tour construction exhibition partnership marriage friendship
    investigation occupation rebellion revolt siege epidemic feud fight project experiment
    recession revolution struggle negotiation blockade depression operation
""")

CENTURIES = entries("11 12 13 14 15 16 17 18")

IDENTIFIERS = entries("""
    total count size width height index offset limit score price rate weight speed length depth
    level rank age year month day hour minute second start end first last next left right top
    bottom row column key value node edge root head tail name title label text line word path
    file host port user group table field color shape angle radius area mass force power energy
    time date cost profit balance amount number order item list page block frame image pixel mode
    state status flag code type kind source target input output error event signal channel
    buffer queue stack tree graph model layer batch step epoch seed sample mean sum range scale
    bias gain loss margin border style theme message token server client query filter format
""")

DIGITS = tuple("0123456789")

CAPITALS = tuple(
    (country, capital)
    for country, _, capital in (
        entry.partition("/")
        for entry in entries("""
    France/Paris Italy/Rome Spain/Madrid Germany/Berlin Japan/Tokyo Russia/Moscow China/Beijing
    England/London Greece/Athens Egypt/Cairo Ireland/Dublin Scotland/Edinburgh Austria/Vienna
    Belgium/Brussels Poland/Warsaw Portugal/Lisbon Sweden/Stockholm Norway/Oslo Denmark/Copenhagen
    Finland/Helsinki Hungary/Budapest Turkey/Ankara Iran/Tehran Iraq/Baghdad Syria/Damascus
    Lebanon/Beirut Afghanistan/Kabul Pakistan/Islamabad Thailand/Bangkok Indonesia/Jakarta
    Korea/Seoul Taiwan/Taipei Canada/Ottawa Cuba/Havana Peru/Lima Chile/Santiago
    Kenya/Nairobi Tunisia/Tunis Ukraine/Kiev Bulgaria/Sofia Switzerland/Bern
    Australia/Canberra Wales/Cardiff Jamaica/Kingston Vietnam/Hanoi Venezuela/Caracas Ecuador/Quito
    Libya/Tripoli Morocco/Rabat Sudan/Khartoum Serbia/Belgrade Croatia/Zagreb Romania/Bucharest
    Iceland/Reykjavik Qatar/Doha Latvia/Riga Lithuania/Vilnius Estonia/Tallinn
    Bangladesh/Dhaka Nepal/Kathmandu Armenia/Yerevan Albania/Tirana Malta/Valletta Cyprus/Nicosia
        """)
    )
)
"Countries, some of them part of another, and their capitals."
