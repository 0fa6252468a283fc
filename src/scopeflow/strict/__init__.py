"""What users write, checked the same way everywhere; the rules need no pydantic, the model does."""

from scopeflow.strict.values import is_integer

__all__ = ["is_integer"]
