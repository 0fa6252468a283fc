# Names come from a table at run time; type checkers take what they do not find here as Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
