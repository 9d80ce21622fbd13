r"""A formula in TeX as a line of text, by the rules of `_math`: for formulas that come in no other form.

Fractions, roots, powers, indices and accents keep their sense; the names of letters and signs become characters; what
only moves or styles them is left out. This is no TeX: macros and preambles are not carried out.
"""

# ruff: noqa: RUF001 -- dashes, primes and Greek letters are meant

import re
from collections.abc import Iterator
from html.entities import html5

from biomedclip_jax.data.pmc.jats._math import Name, accented, fraction, put, root
from biomedclip_jax.data.pmc.jats._scripts import Index, Power, grouped, joined

_DEEPEST = 30  # groups in one another; what is deeper is read as if it had no braces
_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\[\s\S]|[{}^_&~\[\]]|\$+|\s+|\d+(?:[.,]\d+)*|[^\\{}^_&~$\[\]\s\d]")
_DOCUMENT = re.compile(r"\\begin\s*\{document\}([\s\S]*?)(?:\\end\s*\{document\}|\Z)")
# fmt: off
_SIGNS = {
    "cdot": "·", "cdots": "⋯", "ldots": "…", "dots": "…", "to": "→", "infty": "∞", "circ": "∘", "degree": "°", "partial": "∂",
    "neq": "≠", "leqslant": "≤", "geqslant": "≥", "sim": "~", "ast": "*", "prime": "′", "mid": "|", "vert": "|", "Vert": "‖",
    "lvert": "|", "rvert": "|", "lVert": "‖", "rVert": "‖",
    "langle": "⟨", "rangle": "⟩", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "hbar": "ℏ", "ell": "ℓ",
    "emptyset": "∅", "setminus": "\\", "backslash": "\\", "textdegree": "°", "celsius": "°C", "permil": "‰", "wedge": "∧",
    "vee": "∨", "colon": ":", "dagger": "†", "ddagger": "‡", "star": "⋆", "bullet": "•", "bigcirc": "○", "simeq": "≃",
}
_NAMES = frozenset({
    "sin", "cos", "tan", "cot", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "lg", "exp", "min", "max",
    "sup", "inf", "lim", "det", "dim", "arg", "deg", "gcd", "Pr", "mod", "ker",
})
_LARGE = frozenset({"sum", "prod", "int", "lim", "max", "min", "bigcup", "bigcap"})
_FRACTIONS = frozenset({"frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"})
_ACCENTS = {
    "bar": "¯", "overline": "¯", "hat": "^", "widehat": "^", "tilde": "~", "widetilde": "~", "vec": "→", "dot": "˙",
    "ddot": "¨", "check": "ˇ", "breve": "˘", "overrightarrow": "→",
}
_STACKED = frozenset({"underset", "overset", "stackrel"})
_NEGATED = {"=": "≠", "<": "≮", ">": "≯", "\\in": "∉", "\\equiv": "≢", "\\subset": "⊄"}
_SPACES = frozenset({"quad", "qquad", "enspace", "thinspace", "space", "enskip", "newline", "par"})
_WITH_AN_ARGUMENT_THAT_SAYS_NOTHING = frozenset({
    "begin", "end", "label", "tag", "usepackage", "documentclass", "setlength", "hspace", "vspace", "color", "phantom",
    "textcolor",
    "hphantom", "vphantom", "fontsize", "selectfont",
})
_SAY_NOTHING = frozenset({
    "left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "Biggl", "Biggr",
    "middle", "limits", "nolimits", "displaystyle", "textstyle", "scriptstyle", "scriptscriptstyle", "rm", "bf", "it", "cal",
    "normalsize", "small", "mathstrut", "nonumber", "notag", "hfill", "hline", "protect", "relax", "strut", "ensuremath",
    "mathrm", "mathbf", "mathit", "mathsf", "mathtt", "mathcal", "mathbb", "mathfrak", "mathscr", "mathnormal", "text",
    "textrm", "textbf", "textit", "textsf", "texttt", "textnormal", "textup", "textsc", "mbox", "hbox", "operatorname",
    "boldsymbol", "bm",
    "pmb", "ce", "underline", "underbrace", "overbrace", "emph", "upshape", "mathop", "mathrel", "mathbin", "mathord",
})
# fmt: on
_WITH_COLUMNS = frozenset({"array", "tabular", "alignedat"})  # environments that take an argument of their own
_IN_WORDS = frozenset({"text", "textrm", "textbf", "textit", "textsf", "textnormal", "textup", "textsc", "mbox", "hbox"})


def tex_pieces(tex: str) -> list[str]:
    """The pieces of a formula in TeX, as `_scripts.joined` takes them."""
    document = _DOCUMENT.search(tex)
    tokens = _Tokens(document[1] if document else tex)
    return _sequence(tokens, 0, None)


class _Tokens:
    """The tokens of a formula, one after the other."""

    def __init__(self, tex: str) -> None:
        self._found = _TOKEN.finditer(tex)
        self.next = self._read()

    def _read(self) -> str | None:
        return match[0] if (match := next(self._found, None)) else None

    def take(self) -> str | None:
        """The next token; None at the end."""
        token, self.next = self.next, self._read()
        return token

    def take_digit(self) -> str | None:
        """The first digit of a number that comes next, which stays shorter by it; else the next token."""
        token = self.next
        if token is None or len(token) == 1 or not token[0].isdigit():
            return self.take()
        self.next = token[1:]
        return token[0]

    def skip_blanks(self) -> None:
        while self.next is not None and self.next.isspace():
            self.take()

    def rest(self, end: str) -> Iterator[str]:
        """The tokens up to `end`, which is taken, too."""
        while (token := self.take()) is not None and token != end:
            yield token


def _sequence(tokens: _Tokens, depth: int, end: str | None) -> list[str]:
    """The pieces up to the token `end`, which is taken, or the end of all."""
    pieces: list[str] = []
    while (token := tokens.take()) is not None:
        if token == end:
            break
        if token == "\\over" and depth < _DEEPEST:
            below = joined(_sequence(tokens, depth + 1, end)).strip()
            return [fraction(joined(pieces).strip(), below, end is None)]
        _one(token, tokens, pieces, depth)
    return pieces


def _one(token: str, tokens: _Tokens, pieces: list[str], depth: int) -> None:
    if token == "{" and depth < _DEEPEST:
        for piece in _sequence(tokens, depth + 1, "}"):
            put(pieces, piece)
    elif token in ("^", "_"):
        kind = Power if token == "^" else Index
        pieces.append(kind(_argument(tokens, depth)))
    elif token == "&" or token == "~":
        pieces.append(" ")
    elif token in "{}" or token.startswith("$") or token.isspace():
        pass
    elif token.startswith("\\"):
        _command(token[1:].rstrip("*") or "\\", tokens, pieces, depth)
    elif token == "'":
        pieces.append(Power("′"))
    else:
        put(pieces, token)


def _argument(tokens: _Tokens, depth: int, one_digit: bool = False) -> str:
    """The next group, or the next token, as text. A number is one token (10^15 is never meant as 10^1 5), unless
    one_digit.
    """
    tokens.skip_blanks()
    token = tokens.take_digit() if one_digit else tokens.take()
    if token is None or token == "}":
        return ""
    pieces: list[str] = []
    if depth >= _DEEPEST:
        return "" if token == "{" else token
    if token == "{":
        pieces = _sequence(tokens, depth + 1, "}")
    else:
        _one(token, tokens, pieces, depth + 1)
    return joined(pieces).strip()


def _option(tokens: _Tokens) -> str:
    """What stands in brackets next; "" if nothing does."""
    tokens.skip_blanks()
    if tokens.next != "[":
        return ""
    tokens.take()
    return "".join(tokens.rest("]")).strip()


def _command(name: str, tokens: _Tokens, pieces: list[str], depth: int) -> None:
    if not name[0].isalpha():
        pieces.append(
            {",": " ", ";": " ", ":": " ", "!": "", "\\": " ", "|": "‖", "(": "", ")": "", "[": "", "]": ""}.get(name, name)
        )
    elif name in _FRACTIONS:
        above, below = _argument(tokens, depth, True), _argument(tokens, depth, True)
        before = pieces[-1][-1:] if pieces else ""
        tokens.skip_blanks()
        beside = before.isalnum() or before == ")" or _is_a_factor(tokens.next or "")
        put(pieces, fraction(above, below, not beside))
    elif name in ("binom", "tbinom", "dbinom"):
        put(pieces, f"({_argument(tokens, depth)} choose {_argument(tokens, depth)})")
    elif name in _STACKED:
        script = _argument(tokens, depth)
        base = _argument(tokens, depth)
        if name == "underset":
            put(pieces, Name(f"{base}_{grouped(script, script=True)}") if script else base)
        else:
            accent = accented(base, script)
            put(pieces, accent if accent is not None else Name(f"{base}^{grouped(script, script=True)}"))
    elif name == "not" and tokens.next in _NEGATED:
        put(pieces, _NEGATED[str(tokens.take())])
    elif name == "sqrt":
        index = _option(tokens)
        put(pieces, root(_argument(tokens, depth), index))
    elif name in _ACCENTS:
        put(pieces, accented(_argument(tokens, depth), _ACCENTS[name]) or "")
    elif name in _IN_WORDS and tokens.next == "{":
        tokens.take()
        _words(tokens, pieces, depth)
    elif name in _WITH_AN_ARGUMENT_THAT_SAYS_NOTHING:
        _option(tokens)
        if tokens.next == "{" and _argument(tokens, depth) in _WITH_COLUMNS and tokens.next == "{":
            _argument(tokens, depth)
    elif name in _SPACES:
        pieces.append(" ")
    elif name in _SAY_NOTHING:
        if name in ("left", "right", "middle"):
            tokens.skip_blanks()
            if tokens.next == ".":
                tokens.take()
    elif name in _NAMES or name in _LARGE:
        if pieces and pieces[-1][-1:].isalpha():
            pieces.append(" ")
        put(pieces, Name(html5.get(f"{name};", name) if name in _LARGE and name not in _NAMES else name))
    else:
        put(pieces, _sign(name))


def _is_a_factor(token: str) -> bool:
    """Whether a token after a fraction could be read as a part of what is below its line."""
    if token.startswith("\\"):
        name = token[1:]
        return name[0].isalpha() and name not in _SAY_NOTHING | _SPACES and _sign(name)[0].isalnum()
    return token[:1].isalnum() or token in ("(", "{", "^")


def _words(tokens: _Tokens, pieces: list[str], depth: int) -> None:
    r"""What stands in \text{...}: its blanks count."""
    level = 1
    while (token := tokens.take()) is not None:
        level += (token == "{") - (token == "}")
        if level == 0:
            break
        if token.isspace():
            pieces.append(" ")
        else:
            _one(token if token != "{" else "}", tokens, pieces, depth + 1) if depth < _DEEPEST else pieces.append(token)


def _sign(name: str) -> str:
    """The character of a name ("alpha", "leq", "upmu", "textbeta"); the name itself if nobody knows it."""
    for known in (name, name.removeprefix("text"), name.removeprefix("up"), name.removeprefix("var")):
        if known in _SIGNS:
            return _SIGNS[known]
        if f"{known};" in html5:
            return html5[f"{known};"]
    return name
