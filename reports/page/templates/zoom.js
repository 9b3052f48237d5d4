/* Zoom: the figure itself moves into a dialog, where it is made larger and scrolled; Escape brings it back. */
const zoom = document.getElementById("zoom");
const stage = zoom.querySelector(".stage");
let home = null;
let scale = 1;

function setScale(next) {
  scale = Math.min(Math.max(next, 0.5), 16);
  stage.firstElementChild.style.width = `${Math.round(scale * 100)}%`;
}

function enlarge(figure) {
  home = figure.querySelector(".plot, .paper");
  stage.classList.toggle("paper", home.classList.contains("paper"));
  stage.append(home.querySelector("svg, img"));
  zoom.setAttribute("aria-label", figure.querySelector("figcaption strong").textContent);
  zoom.showModal();
  setScale(1);
}

zoom.addEventListener("close", () => {
  const shown = stage.firstElementChild;
  shown.style.width = "";
  home.append(shown);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom]");
  if (button) enlarge(button.closest("figure"));
});
zoom.addEventListener("click", (event) => {
  const act = event.target.closest("[data-scale]")?.dataset.scale;
  if (act === "in") setScale(scale * 1.5);
  if (act === "out") setScale(scale / 1.5);
  if (act === "fit") setScale(1);
  if (act === "close" || event.target === zoom) zoom.close();
});
zoom.addEventListener("keydown", (event) => {
  if (event.key === "+" || event.key === "=") setScale(scale * 1.5);
  if (event.key === "-") setScale(scale / 1.5);
  if (event.key === "0") setScale(1);
});
zoom.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  setScale(scale * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
}, { passive: false });
