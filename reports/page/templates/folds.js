/* What is folded lies in a <template> until it is unfolded: thousands of tables cost nothing before. */
function unfold(details) {
  const template = details.querySelector(":scope > template");
  if (template) template.replaceWith(template.content);
}

document.addEventListener("toggle", (event) => {
  if (event.target.matches("details") && event.target.open) unfold(event.target);
}, true);
