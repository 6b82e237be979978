"""The one error of this room."""


class CheckError(ValueError):
    """Something handed to the check cannot be used; the message is one line that names it and the way out."""


def one_line(text: object, limit: int = 300) -> str:
    """Collapse foreign text (an exception, a name out of a file) to one printable line, cut at `limit`."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
