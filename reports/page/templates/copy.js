/* Copying: a table as LaTeX for the package booktabs, the references as BibTeX. */
const escapes = JSON.parse(document.getElementById("latex-escapes").textContent);

function escaped(text) {
  return [...text].map((c) => escapes[c] ?? (c.charCodeAt(0) < 128 ? c : "?")).join("");
}

function latexNumber(text) {
  const [mantissa, power] = text.split("e");
  if (power !== undefined) return `$${mantissa} \\times 10^{${Number(power)}}$`;
  return text.startsWith("-") ? `$${text}$` : text;
}

function latexCell(cell, head) {
  const text = cell.firstChild ? cell.firstChild.textContent.trim() : "";
  const number = head.classList.contains("number") && text !== "" && !Number.isNaN(Number(text));
  const shown = number ? latexNumber(text) : escaped(text);
  return cell.querySelector("strong") ? `\\textbf{${shown}}` : shown;
}

function latexOf(table) {
  const heads = [...table.tHead.rows[0].cells];
  const line = (cells) => `${cells.join(" & ")} \\\\`;
  const names = heads.map((head) => `\\textbf{${escaped(head.textContent.trim().replaceAll("_", " "))}}`);
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  return [
    "% \\usepackage{booktabs}",
    `\\begin{tabular}{${heads.map((head) => (head.classList.contains("number") ? "r" : "l")).join("")}}`,
    "\\toprule", line(names), "\\midrule",
    ...rows.map((row) => line([...row.cells].map((cell, place) => latexCell(cell, heads[place])))),
    "\\bottomrule", "\\end{tabular}", "",
  ].join("\n");
}

/* Where a page from disk may not use the clipboard, the old way works. */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("the browser does not allow it");
  }
}

function wanted(button) {
  if (button.dataset.copy === "bibtex") return document.getElementById("bibtex").textContent;
  const item = button.closest(".found");
  item.querySelectorAll("details").forEach(unfold);
  return latexOf(item.querySelector("table"));
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const said = document.getElementById("said");
  const before = button.textContent;
  try {
    await toClipboard(wanted(button));
    said.textContent = button.textContent = "Copied";
  } catch (reason) {
    said.textContent = button.textContent = `Not copied: ${reason.message}`;
  }
  setTimeout(() => { button.textContent = before; }, 1500);
});
document.querySelectorAll("[data-copy], [data-zoom]").forEach((button) => { button.hidden = false; });
