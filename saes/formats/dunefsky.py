"""Dunefsky et al.'s transcoders: pickled with their configuration object, so refused.

Reading one would import and run whatever it names. Source of the models: arXiv:2406.11944.
"""

from saes.dictionary import SparseDictionary
from saes.formats.layout import Layout
from saes.formats.place import Entry, Place


def matches(place: Place) -> bool:
    return any(name.endswith(".pt") for name in place.names)


def find(place: Place) -> list[Entry]:
    """Raise `ValueError`: nothing in such a file is read."""
    file = next(name for name in place.names if name.endswith(".pt"))
    raise ValueError(
        f"{place.label}/{file} is of no layout that can be read without running what is in it: "
        "where it was made, load it and save W_enc, W_dec, b_enc and b_dec_out with their "
        "cfg.json as SAELens does, then give that folder"
    )


def load(entry: Entry) -> SparseDictionary:
    raise AssertionError(f"{entry.name} was found, but nothing of this layout ever is")


LAYOUT = Layout(name="dunefsky", matches=matches, find=find, load=load)
