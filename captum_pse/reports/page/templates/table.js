"use strict";
{
  const table = document.querySelector(".pairs");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  const sortBy = (head) => {
    const column = heads.indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    const numbers = head.dataset.kind === "number";
    const compare = (a, b) => {
      const [left, right] = [a, b].map((row) => row.cells[column].dataset.value);
      // Rows without a value come last in both orders.
      if (!left || !right) return !left - !right;
      const order = numbers
        ? left - right : left.localeCompare(right, "en", { numeric: true });
      return up ? order : -order;
    };
    for (const other of heads.filter((h) => h.dataset.kind)) {
      other.setAttribute("aria-sort", "none");
    }
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...[...body.rows].sort(compare));
  };
  for (const head of heads) {
    head.querySelector("button")?.addEventListener("click", () => sortBy(head));
  }

  const filter = document.getElementById("filter");
  const matches = document.getElementById("matches");
  const all = matches.textContent;
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      document.getElementById(`pair-${row.dataset.pair}`).hidden = row.hidden;
      shown += !row.hidden;
    }
    matches.textContent = words.length ? `${shown} of ${all}` : all;
  };
  filter.addEventListener("input", apply);
  // The browser may have kept the text of the field when the page was reloaded.
  apply();
}
