"""What features are for, as one function for each verb: opened, done, written."""

from circuits.scope.classify import classify, detect
from circuits.scope.convert import convert
from circuits.scope.cover import cover
from circuits.scope.describe import Answerer, describe
from circuits.scope.reinforce import reinforce
from circuits.scope.search import search
from circuits.scope.steer import steer
from circuits.scope.synthesise import synthesise
from circuits.scope.tune import tune

__all__ = [
    "Answerer",
    "classify",
    "convert",
    "cover",
    "describe",
    "detect",
    "reinforce",
    "search",
    "steer",
    "synthesise",
    "tune",
]
