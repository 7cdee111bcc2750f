"""What can be done inside a transaction on the hub's database, whichever of the two it is."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


class Transaction(abc.ABC):
    """What can be done inside a transaction; `:programme` is given to every statement."""

    programme: str
    hold: str = ""
    """Ends a SELECT whose rows nobody else may change until the end of the transaction."""
    take: str = ""
    """Ends a SELECT that leaves out what others hold, and holds the rest."""

    @abc.abstractmethod
    def rows(self, statement: str, **values: object) -> list[Row]:
        """The rows that a statement gives."""

    @abc.abstractmethod
    def run(self, statement: str, **values: object) -> int:
        """Carry out a statement; gives how many rows it changed."""

    @abc.abstractmethod
    def many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        """Carry out a statement once for each of the values."""

    @abc.abstractmethod
    def each(self, statement: str, values: Sequence[Mapping[str, object]]) -> list[Row | None]:
        """Carry out a statement once for each of the values, in order; gives the first row of each, or None."""

    def row(self, statement: str, **values: object) -> Row | None:
        """The first row that a statement gives, or None."""
        found = self.rows(statement, **values)
        return found[0] if found else None
