/* Tables: a click on a heading sorts by it, a second click turns the order round; blanks stay last. */
document.addEventListener("click", (event) => {
  const button = event.target.closest("table.sortable th button");
  if (button) sortBy(button.closest("th"));
});

function sortBy(head) {
  const table = head.closest("table");
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.indexOf(head);
  const down = head.getAttribute("aria-sort") === "ascending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const numeric = head.classList.contains("number");
  const key = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return down ? compare(y, x) : compare(x, y);
  });
  table.tBodies[0].append(...rows);
}
