"""English words and patterns for messages on a topic, formal or casual.

In a pattern a name in braces is a word of `WORDING` or `CONTRACTIONS`, or of `BLANKS`, where
formality does not show.
"""

from circuits.tasks.words import entries

CLASSES = ("cooking", "gardening")
TOPICS = {
    "cooking": (
        "{I_am} making a soup with {plant} and no recipe",
        "The {plant} must be peeled before they go into the pan",
        "{I_have} put the {plant} in the oven with a little oil",
        "Salt brings out the taste of the {plant}",
        "{It_is} best to chop the {plant} with a sharp knife",
        "The sauce for the {plant} should simmer for {number} minutes",
        "{We_will} {start} with the {plant} and serve fish after that",
        "{I_think} the {plant} taste {very} {good} with garlic and butter",
        "A salad of {plant} feeds {number} guests",
        "{You_cannot} fry {plant} in cold oil",
        "I {help} in the kitchen when the {plant} are boiled",
        "I {buy} {plant} for dinner at the market",
        "{Do_not} let the {plant} burn at the bottom of the pot",
        "The {plant} are {very} tender once they are steamed",
        "Mash the {plant} and stir in some cream",
        "{Please_tell} me how long {plant} take to roast",
        "{I_have} eaten {many} dishes with {plant} this {month}",
        "We {end} the meal with a pie of {plant}",
    ),
    "gardening": (
        "{I_am} digging a bed for {plant} and the spade is blunt",
        "The {plant} must be watered before the sun is up",
        "{I_have} put the {plant} under glass with a little straw",
        "Compost brings out the best in the {plant}",
        "{It_is} best to prune the {plant} with sharp shears",
        "The seeds of the {plant} should sprout in {number} days",
        "{We_will} {start} with the {plant} and sow peas after that",
        "{I_think} the {plant} grow {very} {good} roots by the fence",
        "A row of {plant} fills {number} pots",
        "{You_cannot} plant {plant} in frozen ground",
        "I {help} in the greenhouse when the {plant} are weeded",
        "I {buy} {plant} as seedlings at the market",
        "{Do_not} let the slugs near the {plant}",
        "The {plant} are {very} tall once they have climbed the sticks",
        "Rake the soil and thin out the {plant}",
        "{Please_tell} me how deep {plant} take root",
        "{I_have} lost {many} leaves of the {plant} to frost this {month}",
        "We {end} the year with a mulch on the {plant}",
    ),
    "football": (
        "The team {need} a goal in the second half",
        "{I_am} watching the match in {town} with {number} friends",
        "{We_will} {start} the season with a new goalkeeper",
        "The coach was {very} {good} after the penalty",
        "{I_think} the striker was offside",
        "{You_cannot} win a league without a defence",
    ),
    "computers": (
        "The laptop {need} a new battery",
        "{I_have} installed the update {number} times",
        "{I_am} writing a program that sorts {many} files",
        "{Do_not} share the password of the server",
        "{I_think} the screen is {very} {good}",
        "I {buy} cables for the network in {town}",
    ),
    "music": (
        "The choir {need} a second piano",
        "{I_have} played the violin for {number} years",
        "{We_will} {start} the concert in {town} with a march",
        "{I_think} the drummer is {very} {good}",
        "{I_am} learning {many} songs on the guitar",
        "We {end} the rehearsal with a waltz",
    ),
    "travel": (
        "The train to {town} {need} {number} hours",
        "{I_have} booked a hotel near the harbour in {town}",
        "{We_will} {start} the trip with a ferry",
        "{I_think} the flight was {very} {good}",
        "{Do_not} lose the passport at the border",
        "I {buy} tickets to {town} every {month}",
    ),
    "money": (
        "The bank {need} {number} forms for a loan",
        "{I_have} paid {many} bills this {month}",
        "{I_am} saving for a flat in {town}",
        "{I_think} the interest is {very} {good}",
        "{You_cannot} cash a cheque on a Sunday",
        "We {end} the year with a small debt",
    ),
    "weather": (
        "The storm {need} {number} hours to pass",
        "{I_have} seen {many} storms in {town}",
        "{It_is} windy and the barometer falls",
        "{I_think} the rain was {very} {good} after the drought",
        "{We_will} {start} {month} with fog and drizzle",
        "{You_cannot} trust a forecast for {town}",
    ),
}
OTHER = (
    "{I_have} {many} questions about this",
    "{I_am} back in {town} in {month}",
    "{I_do_not} know when we meet",
    "{It_is} {very} {good} to hear from you",
    "{We_will} talk about it in {month}",
    "{Please_tell} me what you would change",
    "{I_think} that is all for today",
    "My brother {need} an answer by {month}",
    "I {ask} about it every {number} weeks",
    "The others in {town} were {very} pleased",
    "{You_cannot} do all of it at once",
    "There are {many} ways to do this",
    "{Do_not} worry about the rest",
    "I can {help} in {month}",
)
CONTRACTIONS = {
    "I_am": ("I am", "I'm"),
    "I_have": ("I have", "I've"),
    "I_do_not": ("I do not", "I don't"),
    "It_is": ("It is", "It's"),
    "We_will": ("We will", "We'll"),
    "You_cannot": ("You cannot", "You can't"),
    "Do_not": ("Do not", "Don't"),
}
"Written out and contracted. No neutral form: without this cue either is drawn by chance."
WORDING = {
    "buy": ("buy", "purchase", "grab"),
    "help": ("help", "assist", "lend a hand"),
    "need": ("needs", "requires", "could do with"),
    "very": ("very", "exceedingly", "super"),
    "good": ("good", "excellent", "awesome"),
    "many": ("many", "numerous", "loads of"),
    "start": ("start", "commence", "kick off"),
    "end": ("end", "conclude", "wrap up"),
    "ask": ("ask", "enquire", "bug people"),
    "I_think": ("I think", "I am of the opinion that", "I reckon"),
    "Please_tell": ("Tell", "Kindly inform", "Just text"),
}
"Neutral, formal and casual words for one thing."
OPENINGS = (
    ("Dear Sir or Madam", "Dear colleagues", "To whom it may concern", "Dear members"),
    ("Hey guys", "Hi there", "Hiya folks", "Yo"),
)
CLOSINGS = (
    ("Yours faithfully", "With kind regards", "Respectfully yours", "I remain at your disposal"),
    ("Cheers", "See ya", "Catch you later", "Take it easy"),
)
ADDRESS = (("Sir", "Madam"), ("mate", "buddy", "dude", "pal"))
MARKS = (".", "!")
BLANKS = {
    "plant": entries("""
        tomatoes beans onions carrots potatoes leeks herbs cabbages peppers pumpkins beets
        courgettes radishes apples
        """),
    "town": entries("Bristol Leeds Dublin Boston Vienna Hamburg Lisbon Oslo Madrid Oxford Geneva"),
    "month": entries("January March April May June July August October December"),
    "number": entries("two three four five six seven eight nine ten twelve"),
}
