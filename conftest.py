"""The types' checker is put in place before any test imports the packages that it checks."""

from tests import typechecking

typechecking.install()
