"""What it is to copy an object of this library."""

from __future__ import annotations

import copy
from typing import Any


class Copied:
    """Base of classes whose ``copy.copy``, like ``copy.deepcopy``, has arrays of its own."""

    def __copy__(self) -> Any:
        return copy.deepcopy(self)
