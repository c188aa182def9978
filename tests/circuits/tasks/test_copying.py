"""What followed a word before follows it again, wherever in the list that was."""

from tests.circuits.tasks.english import answers_are_right, made


def came_next(text: str, answer: str) -> bool:
    *listed, before, last = text.split()[1:]
    return answer.strip() == listed[listed.index(last) + 1] and before in listed


def test_what_followed_before_follows_again():
    answers_are_right("induction", came_next)


def test_the_patch_changes_one_word_of_the_list_which_is_its_answer():
    for p in made("induction", "train"):
        clean, patch = p.clean.split(), p.patch.split()
        (changed,) = (i for i, (a, b) in enumerate(zip(clean, patch, strict=True)) if a != b)
        assert (f" {clean[changed]}", f" {patch[changed]}") == (*p.answer, *p.wrong)
        assert p.case == f"word {changed}"
