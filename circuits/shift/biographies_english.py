"""English words and patterns for biographies."""

from circuits.shift.people import Lexicon
from circuits.tasks.names import MEN, WOMEN
from circuits.tasks.words import entries

CLASSES = ("nurse", "professor")

WORK = {
    "nurse": (
        "{Who} dresses wounds and takes blood pressure on a busy ward",
        "{Who} gives out medicine and checks on every patient through the night",
        "{Who} learned to care for the sick at a college in {town}",
        "{Who} works {shift} shifts at a hospital in {town}",
        "For {number} years {who} has looked after newborn babies in intensive care",
        "{Who} holds a certificate in {care} care",
        "{Who} has been a nurse for {number} years",
        "{Who} changes bandages and calms worried families",
        "At the clinic {who} takes samples and prepares patients for surgery",
        "{Who} visits people at home to check on their {care} treatment",
        "{Who} trained in the emergency room of a hospital in {town}",
        "Patients praise the way {who} listens at the bedside",
    ),
    "professor": (
        "{Who} gives lectures on {subject} to large classes",
        "{Who} supervises doctoral students and sits on examination boards",
        "{Who} wrote a doctoral thesis on {subject}",
        "{Who} holds a chair at the university of {town}",
        "For {number} years {who} has led a research group in {subject}",
        "{Who} publishes papers on {subject} in academic journals",
        "{Who} has been a professor for {number} years",
        "{Who} studied {subject} and stayed on campus to teach it",
        "At the faculty {who} grades essays and reviews grant proposals",
        "{Who} joined the department of {subject} after a fellowship in {town}",
        "{Who} edits an academic journal and speaks at conferences",
        "Students praise the way {who} explains {subject} in seminars",
    ),
    "painter": (
        "{Who} paints large canvases in oil and water colours",
        "{Who} shows landscapes and portraits at a gallery in {town}",
        "{Who} studied at the academy of fine arts in {town}",
        "{Who} has been a painter for {number} years",
        "In the studio {who} mixes pigments and stretches canvas",
        "For {number} years {who} has drawn murals for public buildings",
    ),
    "lawyer": (
        "{Who} defends clients in court and drafts contracts",
        "{Who} joined a law firm in {town} after the bar exam",
        "{Who} studied law and clerked for a judge in {town}",
        "{Who} has been a lawyer for {number} years",
        "At trial {who} questions witnesses and argues appeals",
        "For {number} years {who} has settled disputes between companies",
    ),
    "chef": (
        "{Who} runs the kitchen of a restaurant in {town}",
        "{Who} plans the menu and cooks fish and game",
        "{Who} learned to make sauces in a hotel in {town}",
        "{Who} has been a chef for {number} years",
        "At dawn {who} buys vegetables and bakes bread for the guests",
        "For {number} years {who} has written recipes for a magazine",
    ),
    "pilot": (
        "{Who} flies cargo planes between {town} and the islands",
        "{Who} checks the instruments and lands in heavy fog",
        "{Who} learned to fly at an airfield in {town}",
        "{Who} has been a pilot for {number} years",
        "In the cockpit {who} talks to the tower and watches the weather",
        "For {number} years {who} has trained crews on jets",
    ),
    "farmer": (
        "{Who} grows wheat and keeps cows outside {town}",
        "{Who} repairs the tractor and brings in the hay",
        "{Who} learned about soil and seed from neighbours in {town}",
        "{Who} has been a farmer for {number} years",
        "At sunrise {who} milks the goats and feeds the hens",
        "For {number} years {who} has sold apples at the market",
    ),
    "journalist": (
        "{Who} reports on elections for a newspaper in {town}",
        "{Who} interviews ministers and writes a weekly column",
        "{Who} studied media and began at a radio station in {town}",
        "{Who} has been a journalist for {number} years",
        "On deadline {who} checks sources and edits headlines",
        "For {number} years {who} has covered wars and floods",
    ),
    "architect": (
        "{Who} designs schools and bridges for the city of {town}",
        "{Who} draws floor plans and builds models out of card",
        "{Who} studied design and joined an office in {town}",
        "{Who} has been an architect for {number} years",
        "On site {who} talks to builders and measures walls",
        "For {number} years {who} has restored old houses",
    ),
    "dentist": (
        "{Who} fills cavities and straightens teeth in {town}",
        "{Who} opened a dental practice after training in {town}",
        "{Who} takes x-rays of jaws and fits crowns",
        "{Who} has been a dentist for {number} years",
        "With the drill {who} is careful and never in a hurry",
        "For {number} years {who} has taught children to brush and floss",
    ),
}
RELATIONS = (
    "{Who} is the [mother/father] of {number} children",
    "{Who} is married, and the [husband/wife] comes from {town}",
    "{Who} lives near {town} with a [husband/wife] and {number} cats",
    "As the eldest [daughter/son] of the family, {who} grew up in {town}",
    "{Who} has {number} cousins who are all like a [sister/brother]",
    "{Who} became a [grandmother/grandfather] last {month}",
    "{Who} is a proud [aunt/uncle] of {number}",
    "In {town}, {who} was known as the [girl/boy] next door",
    "{Who} is a [widow/widower] and lives in {town}",
    "The neighbours call {them} a kind [woman/man]",
)
OTHER = (
    "{Who} was born in {town} in {month}",
    "{Who} moved to {town} {number} years ago",
    "{Who} speaks {number} languages and likes to travel",
    "In {month} {who} turns fifty",
    "{Who} grew up in a village near {town}",
    "On Sundays {who} walks {their} dog along the river",
    "{Who} keeps {their} old letters in a wooden box",
    "Since {month} {who} has lived in a small flat in {town}",
    "{Who} drinks tea in the morning and coffee at night",
    "{Who} gives part of {their} salary to a charity in {town}",
    "Every {month} {who} goes back to {town} to see {their} friends",
    "{Who} prefers the train to the car",
    "For lunch {who} often eats soup with {their} colleagues",
    "{Who} rents a house with a view of the harbour in {town}",
)
LEISURE = (
    "{Who} spends weekends on {hobby}",
    "In {their} free time {who} enjoys {hobby}",
    "{Who} has loved {hobby} since school",
    "{Who} often talks about {hobby}",
    "When work is over, {who} goes in for {hobby}",
)
BLANKS = {
    "town": entries("""
        Bristol Leeds Dublin Boston Denver Chicago Toronto Vienna Hamburg Lisbon Oslo Madrid
        Portland Oxford Sydney Dallas Geneva Naples Seattle Glasgow
        """),
    "month": entries("January March April May June July August October December"),
    "number": entries("two three four five six seven eight nine ten twelve"),
    "shift": entries("night early late double"),
    "care": entries("wound heart cancer stroke diabetes"),
    "subject": entries("""
        physics history economics linguistics chemistry philosophy statistics geology sociology
        mathematics
        """),
}
SURNAMES = entries("""
        Hale Morris Walker Foster Bennett Carter Hughes Reed Turner Collins Ward Price Barnes Ross
        Jenkins Perry Long Russell Hayes Simmons Grant Webb Porter Hunt Burke Lane
        """)
LEXICON = Lexicon(
    names=(WOMEN, MEN),
    titles=(("Mrs {surname}", "Ms {surname}", "Miss {surname}"), ("Mr {surname}",)),
    pronouns=("she", "he"),
    object_pronouns=("her", "him"),
    possessives=("her", "his"),
    openings=(),
    neutral=("{surname}",),
    surnames=SURNAMES,
    work=WORK,
    relations=RELATIONS,
    hobbies=(
        entries("knitting ballet yoga pottery sewing gymnastics embroidery horses"),
        entries("football fishing golf boxing rugby motorcycles woodworking carpentry"),
    ),
    leisure=LEISURE,
    other=OTHER,
    blanks=BLANKS,
)
