"""
What was probably meant by a command, an option or an event that does not exist.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import click

from dcm_ws.cli.terminal import harmless, say

_LIKE = 0.65
# custom events are allowed, and must not be taken for misspelt ones
_EVENT_LIKE = 0.75
_SHOWN_MAX = 4


def nearest(name: str, known: Collection[str], like: float = _LIKE) -> str | None:
    """
    The name that was probably meant, whatever its case: one that begins with it, or a similar one; None for none.

    @param like: how similar it has to be, from 0 to 1.
    """
    import difflib

    folded = {one.lower(): one for one in known}
    name = name.lower()
    begun = [one for one in folded if len(name) > 2 and one.startswith(name)]
    near = difflib.get_close_matches(name, folded, 1, like) or begun[:1]
    return folded[near[0]] if near else None


class Group(click.Group):
    """
    Commands whose errors say what was probably meant.

    @cvar other_names: what other programs call a command.
    """

    other_names: Mapping[str, str] = {}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            plain = name.lower().replace("_", "-")
            near = self.other_names.get(plain) or nearest(plain, known)
            hint = f"did you mean {near!r}?" if near else f"{ctx.command_path} --help lists them"
            ctx.fail(f"there is no command {harmless(name)!r}; {hint}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _explained(error) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise _explained(error) from None


def _explained(error: click.NoSuchOption) -> click.UsageError:
    """
    The error, with what was probably meant.
    """
    name, ctx = error.option_name, error.ctx
    hint = _hint(name, ctx) if ctx is not None else ""
    # `{!r}` would quote the quotes of the shell
    return click.UsageError(f"there is no option {harmless(name)}" + (f"; {hint}" if hint else ""), ctx)


def _hint(name: str, ctx: click.Context) -> str:
    command = ctx.command
    params = [*command.params, *filter(None, (command.get_help_option(ctx),))]
    options = [word for one in params if isinstance(one, click.Option) for word in one.opts if word.startswith("--")]
    if not name.startswith("--"):
        begun = [word for word in options if word.startswith(f"-{name.lower()}")]
        if begun and len(begun) <= _SHOWN_MAX:
            return f"did you mean {_any_of(begun)}?"
    else:
        arguments = [str(one.name) for one in params if isinstance(one, click.Argument)]
        # `--channel` is an argument of publish
        near = nearest(name.removeprefix("--"), [*(word.removeprefix("--") for word in options), *arguments])
        if near in arguments:
            metavar = near.removesuffix("s").upper()
            return f"{metavar} needs no option: {ctx.get_usage().partition(': ')[2].strip()}"
        if near:
            return f"did you mean --{near}?"
    root = ctx.find_root()
    if name in ("-v", "-V", "--version"):
        return f"{root.command_path} --version shows the version"
    if isinstance(command, click.Group):
        return f"the options of a command follow its name, as in {ctx.command_path} {_example(command, ctx)} {name}"
    return ""


def _example(group: click.Group, ctx: click.Context) -> str:
    names = group.list_commands(ctx)
    return "tail" if "tail" in names else names[0]


def _any_of(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def note_unknown_events(patterns: Iterable[str]) -> None:
    """
    Say which event was probably meant by a pattern that matches none of the catalogue.  An event need not be there,
    so without a similar one nothing is said.
    """
    patterns = [pattern for pattern in patterns if pattern]
    if not patterns:
        return
    from fnmatch import fnmatchcase

    from dcm_ws.protocol.catalogue import EVENTS

    names = [event.name for event in EVENTS]
    families = [f"{family}.*" for family in dict.fromkeys(name.partition(".")[0] for name in names)]
    for pattern in patterns:
        if any(fnmatchcase(name, pattern) for name in names):
            continue
        near = nearest(pattern, families if "*" in pattern else [*families, *names], _EVENT_LIKE)
        if near:
            say(f"note: {harmless(pattern)!r} matches no event of the catalogue; did you mean {near!r}?")
