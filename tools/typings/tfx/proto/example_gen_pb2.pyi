# Message classes are made when the module is imported, where no type checker sees them.
from typing import Any

def __getattr__(name: str) -> Any: ...
