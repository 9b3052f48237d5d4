/* Search: figures and tables that have every word stay, of a table the rows that do; "/" goes to the field. */
const field = document.getElementById("search");
const found = document.getElementById("search-found");
const texts = new WeakMap();
const opened = new Set();

function contextOf(item) {
  const group = item.closest("details.group");
  const heading = item.closest("section").querySelector("h2").textContent;
  return `${heading} ${group ? group.querySelector("summary").textContent : ""}`.toLowerCase();
}

function textOf(item) {
  if (!texts.has(item)) {
    const folded = [...item.querySelectorAll("template")].map((one) => one.content.textContent);
    const drawn = [...item.querySelectorAll("svg[role=img]")].map((one) => one.getAttribute("aria-label"));
    texts.set(item, [contextOf(item), item.textContent, ...folded, ...drawn].join(" ").toLowerCase());
  }
  return texts.get(item);
}

function showRows(item, words) {
  const context = contextOf(item);
  const own = words.filter((word) => !context.includes(word));
  for (const table of item.querySelectorAll("table.sortable")) {
    const rows = [...table.tBodies[0].rows];
    const hits = rows.map((row) => own.every((word) => row.textContent.toLowerCase().includes(word)));
    const some = own.length > 0 && hits.includes(true);
    rows.forEach((row, place) => { row.hidden = some && !hits[place]; });
  }
}

function showGroup(group, searching) {
  group.hidden = searching && !group.querySelector(".found:not([hidden])");
  if (searching && !group.hidden && !group.open) {
    group.open = true;
    opened.add(group);
  } else if (!searching && opened.delete(group)) {
    group.open = false;
  }
}

function search() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const searching = words.length > 0;
  const items = [...document.querySelectorAll("main .found")];
  let count = 0;
  for (const item of items) {
    const hit = words.every((word) => textOf(item).includes(word));
    item.hidden = !hit;
    count += hit;
    if (hit) showRows(item, words);
  }
  document.querySelectorAll("details.group").forEach((group) => showGroup(group, searching));
  for (const [id, link] of entries) {
    const section = document.getElementById(id);
    section.hidden = searching && !section.querySelector(".found:not([hidden])");
    link.parentElement.hidden = section.hidden;
  }
  found.textContent = searching ? `${count} of ${items.length} figures and tables` : "";
}

let waiting = 0;
field.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(search, 150);
});
field.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    field.value = "";
    search();
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    field.focus();
  }
});
document.querySelector(".search").hidden = false;
