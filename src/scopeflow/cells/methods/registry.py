"""Methods by name: built in, registered in this process, or by entry points; runs none of them."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from typing import Any

from scopeflow.engine.identity import NOT_IDENTIFIED, identity_or_reason
from scopeflow.errors import OptionsError, nearest_name
from scopeflow.strict.values import shortened

__all__ = ["Registry", "function_facts"]

Method = Callable[..., Any]


class Registry:
    """Methods of one kind by name.

    `kind` names the parameter and the group of entry points. A method of `built_in` is None if it
    has parameters of its own; `needs` names the package of a method, which is also the extra that
    installs it.

    Examples
    --------
    >>> registry = Registry("segmentation", {"logstd": None}, {})
    >>> registry.register("bright", lambda frame, *, least=100: (frame > least).astype(int))
    >>> registry.names()
    ['bright', 'logstd']
    >>> registry.get("bright", {"lest": 3})
    Traceback (most recent call last):
    scopeflow.errors.OptionsError: params.segmentation_options: 'bright' has no option 'lest'. \
Did you mean 'least'? It has: least
    """

    def __init__(
        self, kind: str, built_in: Mapping[str, Method | None], needs: Mapping[str, str]
    ) -> None:
        self.kind = kind
        self.group = f"scopeflow.cells.{kind}"
        self.built_in = dict(built_in)
        self.needs = dict(needs)
        self.registered: dict[str, Method] = {}

    def names(self) -> list[str]:
        """Return all names."""
        found = {entry.name for entry in entry_points(group=self.group)}
        return sorted({*self.built_in, *self.registered, *found})

    def register(self, name: str, method: Method) -> None:
        """Add a method.

        Raises OptionsError: if the name is taken, or the method cannot be called.
        """
        if name in self.names():
            raise OptionsError(
                f"a {self.kind} method {shortened(name)} exists; choose another name"
            )
        if not callable(method):
            raise OptionsError(f"{self.kind} method {shortened(name)}: {method!r} cannot be called")
        self.registered[name] = method

    def get(self, name: str, options: Mapping[str, Any]) -> Method | None:
        """Return a method with its options bound; None for one with parameters of its own.

        Raises OptionsError: for an unknown name or option, or a package that is not installed.
        """
        # Looking for entry points takes as long as a small FOV.
        is_here = name in self.built_in or name in self.registered
        if not is_here and name not in (known := self.names()):
            raise OptionsError(
                f"params.{self.kind}_method={shortened(name)} is not "
                f"known.{nearest_name(name, known)} "
                f"Known: {', '.join(known)}"
            )
        package = self.needs.get(name)
        if package is not None and find_spec(package) is None:
            raise OptionsError(
                f"params.{self.kind}_method={shortened(name)} needs the package {package}, "
                "which is not "
                f"installed; install it with pip install 'scopeflow[{package}]'"
            )
        method = self.built_in.get(name, self.registered.get(name))
        if method is None and name not in self.built_in:
            method = self._load(name)
        self._check_options(name, method, options)
        return partial(method, **options) if method is not None and options else method

    def _load(self, name: str) -> Method:
        entries = list(entry_points(group=self.group, name=name))
        if len(entries) > 1:
            values = ", ".join(entry.value for entry in entries)
            raise OptionsError(
                f"{self.kind} method {shortened(name)} is offered by several packages ({values}); "
                "uninstall all but one"
            )
        try:
            method: Method = entries[0].load()
        except Exception as error:
            raise OptionsError(
                f"{self.kind} method {shortened(name)}: {entries[0].value} cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not callable(method):
            raise OptionsError(
                f"{self.kind} method {shortened(name)}: {entries[0].value} is no function"
            )
        return method

    def _check_options(self, name: str, method: Method | None, options: Mapping[str, Any]) -> None:
        allowed: list[str] = []
        if method is not None:
            parameters = list(inspect.signature(method).parameters.values())[1:]
            if any(one.kind is one.VAR_KEYWORD for one in parameters):
                return
            allowed = [one.name for one in parameters if one.kind is not one.POSITIONAL_ONLY]
        for key in options:
            if key not in allowed:
                has = f"It has: {', '.join(allowed)}" if allowed else "It has none"
                raise OptionsError(
                    f"params.{self.kind}_options: {shortened(name)} has no option {shortened(key)}."
                    f"{nearest_name(key, allowed)} {has}"
                )

    def facts(self, name: str, options: Mapping[str, Any]) -> list[Any]:
        """Return what results of a method depend on, for fingerprints."""
        package = self.needs.get(name)
        made_by = None
        if package is not None:
            try:
                made_by = version(package)
            except PackageNotFoundError:
                made_by = "unknown"
        method = self.get(name, {})
        known = "built in" if name in self.built_in else function_facts(method)
        return [name, known, sorted(options.items()), made_by]


def function_facts(function: Any) -> dict[str, str]:
    """Return what a function of a user is; what cannot be identified is never the same again."""
    facts = identity_or_reason(function)
    return {**facts, "run": uuid.uuid4().hex} if NOT_IDENTIFIED in facts else facts
