// Draws the figures, in the colours that the page has at the moment, and again when these change.
"use strict";
(() => {
  const { roles, figures } = JSON.parse(document.getElementById("figures").textContent);
  const settings = { displayModeBar: false, responsive: true };
  const printWidth = 680;

  const inColours = (value, style) => {
    if (typeof value === "string") {
      return Object.hasOwn(roles, value) ? style.getPropertyValue("--" + roles[value]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((part) => inColours(part, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, inColours(part, style)]));
  };

  const draw = (width) => {
    const style = getComputedStyle(document.documentElement);
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById("chart-" + name);
      if (!place) continue;
      const { data, layout } = inColours(figure, style);
      if (width) layout.width = width;
      Plotly.react(place, data, layout, settings);
    }
  };

  draw();
  document.documentElement.dataset.drawn = "yes";
  matchMedia("screen and (prefers-color-scheme: dark)").addEventListener("change", () => draw());
  addEventListener("beforeprint", () => draw(printWidth));
  addEventListener("afterprint", () => draw());
})();
