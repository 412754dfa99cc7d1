// The head of a column sorts its table by click, Enter or Space; figures sort by the number in data-value.
const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
const key = (row, column) => {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : +cell.dataset.value;
};
for (const head of document.querySelectorAll("table.sortable thead th")) {
  // no <button>: Chromium does not paint one where a printed table goes on and repeats its head
  const button = document.createElement("span");
  button.setAttribute("role", "button");
  button.tabIndex = 0;
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault(); // Space would scroll
    head.click();
  });
  head.addEventListener("click", () => {
    const column = head.cellIndex, body = head.closest("table").tBodies[0];
    const figures = [...body.rows].some((row) => row.cells[column].dataset.value !== undefined);
    const now = head.getAttribute("aria-sort");
    const down = now ? now === "ascending" : figures;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [key(one, column), key(other, column)];
      if (a === null || b === null) return (a === null) - (b === null); // what is not known stays last
      return down ? order(b, a) : order(a, b);
    });
    body.append(...rows);
  });
}
// On paper nothing is folded.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
