"use strict";
(() => {
  const form = document.getElementById("filters");
  const count = document.getElementById("count");
  const rows = [...document.querySelectorAll("tr[data-id]")];
  const bodies = [...document.querySelectorAll(".matrix tbody")];
  const sections = new Map(
    [...document.querySelectorAll("section[data-id]")].map((one) => [one.dataset.id, one]));
  const { text, level, family, outcome } = form.elements;

  const wanted = ({ dataset }, words) => {
    if (!words.every((word) => dataset.text.includes(word))) return false;
    if (level.value && dataset.level !== level.value) return false;
    if (family.value && dataset.family !== family.value) return false;
    if (outcome.value === "look") return "look" in dataset;
    if (outcome.value === "differs") return "differs" in dataset;
    return !outcome.value || dataset.outcomes.split(" ").includes(outcome.value);
  };
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const keep = wanted(row, words);
      row.hidden = !keep;
      sections.get(row.dataset.id).hidden = !keep;
      shown += keep;
    }
    for (const body of bodies) body.hidden = !body.querySelector("tr[data-id]:not([hidden])");
    count.textContent = `${shown} of ${rows.length} requirements`;
  };
  const showAll = () => {
    text.value = level.value = family.value = outcome.value = "";
    filter();
  };
  // A link may point to a requirement that the filter hides.
  const follow = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.closest("[hidden]")) return;
    showAll();
    target.scrollIntoView();
  };

  form.hidden = false;
  for (const event of ["input", "change"]) form.addEventListener(event, filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => { event.preventDefault(); showAll(); });
  addEventListener("hashchange", follow);
  filter();
  follow();
})();
