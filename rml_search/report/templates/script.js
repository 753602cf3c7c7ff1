"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const darkColours = JSON.parse(document.getElementById("dark-colours").textContent);
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isTouched = window.matchMedia("(pointer: coarse)").matches;
  const config = { displayModeBar: false, responsive: true };
  const PAPER_WIDTH = 680; // pixels that fit between the margins of a sheet of A4 or Letter
  const PAPER_HEIGHT = 0.72; // of a plot's height on a screen: lower ones leave less of a sheet empty

  function coloured(figure, isDark) {
    let text = JSON.stringify(figure);
    if (isDark) {
      for (const [light, dark] of Object.entries(darkColours)) text = text.replaceAll(light, dark);
    }
    const copy = JSON.parse(text);
    // A finger that scrolls the page must not draw a box to zoom into.
    if (isTouched) copy.layout.dragmode = false;
    return copy;
  }

  function draw(isDark, paperWidth) {
    for (const [key, figure] of Object.entries(figures)) {
      const place = document.getElementById(`plot-${key}`);
      const { data, layout } = coloured(figure, isDark);
      if (paperWidth) {
        layout.width = place.closest(".slices") ? (paperWidth - 24) / 2 : paperWidth;
        layout.height *= PAPER_HEIGHT;
      }
      Plotly.react(place, data, layout, config);
    }
  }

  // On paper everything is shown in dark ink: what was folded away too.
  const folded = [...document.querySelectorAll("details:not([open])")];
  window.addEventListener("beforeprint", () => {
    for (const details of folded) details.open = true;
    draw(false, PAPER_WIDTH);
  });
  window.addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
    draw(prefersDark.matches);
  });
  prefersDark.addEventListener("change", () => draw(prefersDark.matches));
  draw(prefersDark.matches);

  function compare(first, second) {
    const numbers = [Number(first), Number(second)];
    return numbers.some(Number.isNaN) ? first.localeCompare(second) : numbers[0] - numbers[1];
  }

  function sort(table, heading) {
    const headings = [...heading.parentElement.children];
    const column = headings.indexOf(heading);
    const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    const value = (row) => row.children[column].dataset.sort;
    // What is missing stays at the end, whichever way round.
    const rows = [...table.tBodies[0].rows].sort((first, second) => {
      const [one, other] = [value(first), value(second)];
      if (one === "" || other === "") return (one === "") - (other === "");
      return sign * compare(one, other);
    });
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const heading of table.tHead.rows[0].cells) {
      heading.querySelector("button").addEventListener("click", () => sort(table, heading));
    }
  }
})();
