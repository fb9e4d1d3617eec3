// Draws the figures, in the colours that the page has at the moment, and again when these change.
"use strict";
(() => {
  const { roles, figures } = JSON.parse(document.getElementById("figures").textContent);
  const settings = { displayModeBar: false, responsive: true };
  const printWidth = 680;
  const places = new Map();
  let turn;

  const inColours = (value, style) => {
    if (typeof value === "string") {
      return Object.hasOwn(roles, value) ? style.getPropertyValue("--" + roles[value]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((part) => inColours(part, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, inColours(part, style)]));
  };

  const draw = (name, width) => {
    const { data, layout } = inColours(figures[name], getComputedStyle(document.documentElement));
    if (width) layout.width = width;
    Plotly.react(places.get(name), data, layout, settings);
  };

  // One after the other, so that the page can be read and scrolled while the lower ones are still being drawn.
  const drawInTurns = () => {
    clearTimeout(turn);
    const waiting = [...places.keys()];
    const next = () => {
      if (waiting.length === 0) {
        document.documentElement.dataset.drawn = "yes";
        return;
      }
      draw(waiting.shift());
      turn = setTimeout(next);
    };
    next();
  };

  // Paper waits for nobody: all of them now, as wide as a page.
  const drawForPaper = () => {
    clearTimeout(turn);
    for (const name of places.keys()) draw(name, printWidth);
  };

  for (const [name, figure] of Object.entries(figures)) {
    const place = document.getElementById("chart-" + name);
    if (!place) continue;
    place.style.minHeight = figure.layout.height + "px"; // nothing moves when it is drawn
    places.set(name, place);
  }
  drawInTurns();
  matchMedia("screen and (prefers-color-scheme: dark)").addEventListener("change", drawInTurns);
  addEventListener("beforeprint", drawForPaper);
  addEventListener("afterprint", drawInTurns);
})();
