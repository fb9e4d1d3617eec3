"""Colours by role, for light and dark screens. Print is always light."""

LIGHT = {
    "page": "#f6f7f8",
    "surface": "#ffffff",
    "ink": "#1b2128",
    "muted": "#59636f",
    "line": "#dde2e7",
    "accent": "#2a5d8f",
    "keep": "#0f766e",
    "keep-soft": "#d8efeb",
    "keep-ink": "#0a544e",
    "drop": "#bd4f1d",
    "drop-soft": "#fae5da",
    "drop-ink": "#8a3711",
    "abstain": "#97a1ad",
    "abstain-soft": "#ebeef1",
    "abstain-ink": "#4d5762",
    "reject": "#75559f",
    "reject-soft": "#ece5f5",
    "reject-ink": "#573c7d",
    "low": "#e8a07b",
    "middle": "#f4f4f2",
    "high": "#6fc0b5",
}

DARK = {
    "page": "#11151a",
    "surface": "#191f26",
    "ink": "#e4e8ec",
    "muted": "#9ba6b2",
    "line": "#2d363f",
    "accent": "#7fb2e2",
    "keep": "#3aa798",
    "keep-soft": "#12332f",
    "keep-ink": "#84d8cb",
    "drop": "#dd7a4b",
    "drop-soft": "#402317",
    "drop-ink": "#f3b192",
    "abstain": "#6f7b88",
    "abstain-soft": "#252d35",
    "abstain-ink": "#b4bec8",
    "reject": "#a68ad0",
    "reject-soft": "#2e2540",
    "reject-ink": "#cdb9ec",
    "low": "#8d4629",
    "middle": "#2a3139",
    "high": "#1d6c62",
}


def variables(colours: dict[str, str]) -> str:
    """The colours as CSS custom properties."""
    return "".join(f"--{name}:{value};" for name, value in colours.items())
