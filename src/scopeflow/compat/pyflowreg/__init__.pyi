# Names come from `_names.py`; type checkers take those that they do not find here as Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
