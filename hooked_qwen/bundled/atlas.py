"""An invented country: regions, their capitals and towns, what is grown there and flown.

The names are readable but stand for nothing, so a model can only know them from the text
that states them. Order carries no information: town names are spread over regions at random.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Town:
    """A town with what can be found out about it by way of its region."""

    name: str
    region: str
    capital: str


@dataclass(frozen=True)
class Region:
    name: str
    capital: str
    crop: str
    colour: str
    towns: tuple[Town, ...]


_TABLE = """
Ostria Brenn barley green: Velmar Zanmoor Polfield Kelrin Briswick Ormby Jarwick Varcombe
Belmora Tolva wheat red: Bramoor Gardor Lormar Jardale Jarvik Melmoor Corwick Dunton
Caldria Asken apples blue: Grinlund Dunrin Velton Eskmoor Bramere Velbury Narton Nesnes
Dravonia Mirel grapes white: Tamden Ulmford Tamcombe Selmoor Ormbury Wildor Crenley Crenvik
Elvaria Pollen rye yellow: Hasknes Fosfield Ildfield Linwick Torstad Quilford Quilden Garmere
Fenmark Sorrel hops black: Weswick Polcombe Dunvik Falstad Yardor Lorton Yarsby Seldale
Galdonia Karst beans purple: Quilvik Wesdor Zanfield Ormton Dunsby Braby Brisden Falsby
Hestria Umber maize orange: Lorford Pelnes Melmere Nardale Thalgate Polstad Linford Varvik
Ilmora Lasko plums green: Linrin Velford Melcombe Falden Rudmar Peldor Tormoor Rudholm
Jorvania Dremel oats red: Thalfield Dunwick Garsby Melholm Brabury Ulmstad Ormlund Morgate
Kestria Ferro peas blue: Stenford Eskstad Melfield Kelby Wilvik Stenvik Quilrin Narcombe
Lumenia Hallam cabbage white: Morford Haskholm Wesgate Brislund Jarstad Jarholm Selfield Velvik
Marovia Ivaro pears yellow: Esknes Thalmere Stenmoor Linmoor Ulmby Eskton Varton Dremcombe
Norwend Jessel carrots black: Yarnes Quilton Ormley Thalbury Rosnes Thaldale Tamgate Yarden
Orlandia Kovar turnips purple: Dremvik Brisholm Torgate Hasklund Nesfield Roscombe Nesby Linstad
Pelgia Luneth flax orange: Pelgate Varden Ildnes Selbury Ulmton Narmere Stencombe Lorbury
Quentara Maddis barley red: Cormoor Velmere Stenwick Kelfield Pelmar Brisfield Rudgate Falmoor
Rovania Nuvola wheat blue: Dremby Kelden Nesmoor Rudmere Tamwick Morby Haskmoor Falgate
Sarmira Obrec apples white: Wilcombe Grinmar Pelstad Selholm Narden Rosby Corvik Yarcombe
Tirenia Pravik grapes yellow: Grindor Haskdor Garlund Morsby Braley Foslund Holbury Garstad
Umbrosa Quorn rye black: Lornes Holrin Holfield Wilden Rudrin Morholm Zancombe Nesrin
Vestria Rullo hops purple: Ildsby Polgate Ulmbury Torby Wilgate Varmoor Fosgate Dremgate
Wallowen Sivers beans orange: Grinrin Corgate Polrin Weslund Eskden Corby Fosley Zanden
Zemland Tarrow maize green: Grinton Fosnes Dremnes Holton Wesford Rosdor Zandor Ildmoor
"""


def _region(line: str) -> Region:
    facts, _, names = line.partition(":")
    name, capital, crop, colour = facts.split()
    towns = tuple(Town(town, name, capital) for town in names.split())
    return Region(name, capital, crop, colour, towns)


REGIONS = tuple(_region(line) for line in _TABLE.strip().splitlines())
