"""Tasks about named people: who receives the gift, and which pronoun the name takes."""

from itertools import product

from circuits.tasks.choice import Choice
from circuits.tasks.dealing import Arrangements
from circuits.tasks.names import MEN, WOMEN
from circuits.tasks.words import GIFTS, ROLES, SHOPS
from hooked_qwen import families
from hooked_qwen.families import PromptPair, Template, swap

SCENES = {
    "when": "When {} and {} went to the {place}, {again} gave the {gift} to",
    "after": "After {} and {} came to the {place}, {again} handed the {gift} to",
    "then": "Then {} and {} met at the {place}; {again} brought the {gift} to",
    "while": "While {} and {} sat in the {place}, {again} passed the {gift} to",
}
"The same number of words and marks in each, so that all prompts have one length."

ORDERS = {"ABBA": (0, 1), "BABA": (1, 0)}
PRONOUNS = (" he", " she")


def ioi(choice: Choice) -> tuple[Template, ...]:
    """Indirect object: `When Mary and John went to the store, John gave the book to` -> Mary.

    Of two names the one that is not repeated receives. The patch repeats the other name, so its
    right answer is John. Half the prompts name the receiver first (ABBA), half second (BABA).

    Source: Wang et al. 2022, arXiv:2211.00593.
    Differs: the patch swaps the repeated name, where Wang et al. put a third one.
    """

    def build(
        scene: str, order: tuple[int, int], names: tuple[str, str], shop: str, gift: str
    ) -> PromptPair:
        said = (names[order[0]], names[order[1]])
        text = SCENES[scene].replace("{place}", shop).replace("{gift}", gift)
        return families.ioi(text, said, order.index(0))

    everyone = choice.pick("men's names", MEN) + choice.pick("women's names", WOMEN)
    pools = (
        Arrangements(everyone, 2),
        choice.pick("places", SHOPS),
        choice.pick("gifts", GIFTS),
    )
    return tuple(
        Template(case=f"{order}, {scene}", pools=((scene,), (ORDERS[order],), *pools), build=build)
        for scene, order in product(SCENES, ORDERS)
    )


def pronoun(choice: Choice) -> tuple[Template, ...]:
    """Gendered pronoun: `So Anna is such a good cook, isn't` -> she.

    The name alone says which pronoun; the patch has a name of the other sex.

    Source: Mathwin et al. 2023, "Identifying a preliminary circuit for predicting gendered
    pronouns in GPT-2 small".
    """

    def build(which: int, names: tuple[str, str], role: str) -> PromptPair:
        order = (which, 1 - which)
        return swap(
            lambda i: f"So {names[i]} is such a good {role}, isn't",
            order,
            [PRONOUNS[i] for i in order],
        )

    men, women = choice.pick("men's names", MEN), choice.pick("women's names", WOMEN)
    names = [(man, woman) for man in men for woman in women]
    roles = choice.pick("roles", ROLES)
    return tuple(
        Template(case=case, pools=((which,), names, roles), build=build)
        for which, case in enumerate(("he", "she"))
    )
