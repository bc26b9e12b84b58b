"use strict";
(() => {
  const form = document.getElementById("filters");
  const rows = [...document.querySelectorAll("tr[data-id]")];
  const sections = new Map(
    [...document.querySelectorAll("section[data-id]")].map((one) => [one.dataset.id, one]));
  const count = document.getElementById("count");
  const wanted = (row, words, level, family, outcome) => {
    const text = row.dataset.text;
    if (!words.every((word) => text.includes(word))) return false;
    if (level && row.dataset.level !== level) return false;
    if (family && row.dataset.family !== family) return false;
    if (outcome === "differs") return row.dataset.differs === "yes";
    if (outcome === "look") return row.dataset.look === "yes";
    return !outcome || row.dataset.outcomes.split(" ").includes(outcome);
  };
  const filter = () => {
    const { text, level, family, outcome } = form.elements;
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const keep = wanted(row, words, level.value, family.value, outcome.value);
      row.hidden = !keep;
      sections.get(row.dataset.id).hidden = !keep;
      shown += keep;
    }
    count.textContent = `${shown} of ${rows.length} requirements`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
