// Tables that sort by the column whose head is chosen: numbers by value with unknown ones last, else by text.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const isFalling = head.getAttribute("aria-sort") !== "descending" && column > 0;
      const isRising = head.getAttribute("aria-sort") !== "ascending" && column === 0;
      const sign = isFalling ? -1 : isRising || column > 0 ? 1 : -1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const compare = (a, b) => {
        const [x, y] = [key(a, column), key(b, column)];
        if (column === 0) return sign * x.localeCompare(y, undefined, { numeric: true });
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (Number(x) - Number(y));
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// Folded tables are part of the printed page.
const folded = () => document.querySelectorAll("details:not([open])");
window.addEventListener("beforeprint", () => folded().forEach((one) => { one.dataset.folded = ""; one.open = true; }));
window.addEventListener("afterprint", () =>
  document.querySelectorAll("details[data-folded]").forEach((one) => { one.open = false; delete one.dataset.folded; }),
);
