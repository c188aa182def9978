"""What the tables of commands print, without a terminal."""

from circuits.cli.tables import console


def printed(show, *arguments, width=110, styles=False, **named) -> str:
    """What `show` prints on the commands' console, with ANSI codes where `styles` are asked for."""
    before = console.width
    console.width, console.record = width, True
    try:
        show(*arguments, **named)
        return console.export_text(styles=styles)
    finally:
        console.width, console.record = before, False
