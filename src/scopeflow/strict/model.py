"""The base of all option models: unknown names are errors, assignment is checked, one wording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from scopeflow.errors import OptionsError, ScopeflowError, nearest_name
from scopeflow.strict.values import Whole, boolean, excerpt, explained

Count = Annotated[int, Whole(1)]
"""A whole number from 1 on."""

Flag = Annotated[bool, BeforeValidator(boolean)]
"""True or false, nothing that stands for it."""


class StrictModel(BaseModel):
    """Options by name; a mistake is an `OptionsError` that names each bad option.

    Examples
    --------
    >>> class Model(StrictModel):
    ...     alpha: float = 1.0
    >>> Model(alhpa=2)
    Traceback (most recent call last):
    scopeflow.errors.OptionsError: Model: unknown option 'alhpa'. Did you mean 'alpha'?
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise options_error(error, type(self)) from None

    # Pydantic then builds nested models itself, and its errors keep the whole path of a value.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """Make a model from a mapping; errors are those of the constructor."""
        try:
            return super().model_validate(obj, **kwargs)
        except ValidationError as error:
            raise options_error(error, cls) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).model_fields:
            raise OptionsError(f"{type(self).__name__}: {_unknown(name, type(self))}")
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            self.__dict__.update(before)
            raise options_error(error, type(self)) from None
        except ScopeflowError:
            # A check of the whole model comes after the value is in its place.
            self.__dict__.update(before)
            raise


def options_error(error: ValidationError, model: type[BaseModel]) -> OptionsError:
    """Turn what pydantic found into one message that names each bad option by its path."""
    found = error.errors(include_url=False)
    own = [item.get("ctx", {}).get("error") for item in found]
    if len(own) == 1 and isinstance(own[0], OptionsError) and not found[0]["loc"]:
        return own[0]
    lines = [_line(dict(item), model) for item in found]
    return OptionsError(f"{model.__name__}: " + "; ".join(dict.fromkeys(lines)))


def _line(item: Mapping[str, Any], model: type[BaseModel]) -> str:
    *above, name = item["loc"] or ("",)
    path = excerpt(".".join(excerpt(str(part), 80) for part in item["loc"]))
    kind, given = item["type"], item["input"]
    if kind == "extra_forbidden":
        return _unknown(str(name), _model_at(model, above), path)
    sentence = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("enum", "literal_error") and isinstance(given, str):
        expected = str(item.get("ctx", {}).get("expected", ""))
        choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
        hint = nearest_name(given, choices) or nearest_name(given.upper(), choices)
        sentence += f".{hint}" if hint else ""
    if not path:
        return str(sentence)
    if kind == "missing" or isinstance(given, BaseModel):
        return f"{path}: {sentence}"
    return explained(path, given, sentence)


def _unknown(name: str, model: type[BaseModel], path: str = "") -> str:
    known = list(model.model_fields)
    hint = nearest_name(name, known) or f" Options are: {', '.join(sorted(known))}."
    return f"unknown option '{excerpt(path or name, 80)}'.{hint}"


def _model_at(model: type[BaseModel], path: list[Any]) -> type[BaseModel]:
    for part in path:
        if part in model.model_fields:
            model = _nested(model.model_fields[part].annotation) or model
    return model


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_nested, get_args(annotation))), None)
