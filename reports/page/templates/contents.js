/* Contents: they stay in view, and the section that is read is marked in them. */
const contents = document.getElementById("contents");
const entries = new Map([...contents.querySelectorAll("a")].map((link) => [link.getAttribute("href").slice(1), link]));
const narrow = window.matchMedia("(max-width: 68rem)");
const inView = new Set();

function foldContents() {
  contents.open = !narrow.matches;
}
foldContents();
narrow.addEventListener("change", foldContents);
contents.addEventListener("click", (event) => {
  if (narrow.matches && event.target.closest("a")) contents.open = false;
});

const watcher = new IntersectionObserver((seen) => {
  for (const one of seen) inView[one.isIntersecting ? "add" : "delete"](one.target.id);
  const current = [...entries.keys()].find((id) => inView.has(id));
  for (const [id, link] of entries) {
    if (id === current) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "-15% 0px -60% 0px" });
document.querySelectorAll("main > section").forEach((section) => watcher.observe(section));
