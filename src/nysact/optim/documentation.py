"""The signature and the docstring of an optimizer, from its options."""

from collections.abc import Mapping
from inspect import Parameter, Signature, cleandoc
from textwrap import fill

from nysact.optim.settings import Option

_RAISES = """
Raises:
    TypeError: If an argument is of the wrong type, or the model is an ``nn.DataParallel``.
    ValueError: If a value is out of range, a parameter is not of the model or given twice,
        nothing is trainable, or no layer can be preconditioned.
"""
_MODEL = (
    "The model that is trained. Its layers get forward hooks, so the same model must run the "
    "forwards."
)
_PARAMS = (
    "Parameters, named parameters or parameter groups of the model, as in ``torch.optim``; "
    "default all trainable parameters. A group may set the options below{exceptions}, and "
    "``precondition=False`` for the plain update."
)


def signature_of(options: Mapping[str, Option]) -> Signature:
    """The explicit signature of an optimizer with these options."""
    first = [
        Parameter("model", Parameter.POSITIONAL_OR_KEYWORD),
        Parameter("params", Parameter.POSITIONAL_OR_KEYWORD, default=None),
    ]
    keyword = Parameter.KEYWORD_ONLY
    rest = [Parameter(name, keyword, default=each.default) for name, each in options.items()]
    return Signature(first + rest)


def documentation_of(doc: str, options: Mapping[str, Option]) -> str:
    """Complete a docstring by the sections Args and Raises."""
    alone = [f"``{name}``" for name, option in options.items() if not option.grouped]
    params = _PARAMS.format(exceptions=f", {', '.join(alone)} apart" if alone else "")
    texts = {"model": _MODEL, "params": params, **{n: option.doc for n, option in options.items()}}
    entries = [
        fill(f"{name}: {text}", 96, initial_indent="    ", subsequent_indent="        ")
        for name, text in texts.items()
    ]
    return "\n".join([cleandoc(doc), "", "Args:", *entries, _RAISES])
