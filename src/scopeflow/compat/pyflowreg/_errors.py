"""Our clear errors as the class that scripts for PyFlowReg catch: pydantic's `ValidationError`."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from scopeflow.errors import ScopeflowError


def validation_error(model: str, error: ScopeflowError) -> ValidationError:
    """Return an error of pydantic, which is a `ValueError`, with the message of ours."""
    kind = PydanticCustomError("value_error", "{message}", {"message": str(error)})
    return ValidationError.from_exception_data(model, [InitErrorDetails(type=kind, input=None)])
