/* Which items are shown, in which order. */
const COMPARE = {
  worst: (one, two) => one.index - two.index,
  best: (one, two) => two.index - one.index,
  given: (one, two) => one.given - two.given || one.index - two.index,
  predicted: (one, two) => one.predicted - two.predicted || one.index - two.index,
};

class Filters {
  constructor(items, classNames, marks) {
    this.items = items;
    this.marks = marks;
    this.controls = {
      given: document.getElementById("filter-given"),
      predicted: document.getElementById("filter-predicted"),
      sort: document.getElementById("sort"),
      text: document.getElementById("search"),
    };
    this.decision = "";
    this.decisionButtons = [...document.querySelectorAll("[data-filter-decision]")];
    this.pairButtons = [...document.querySelectorAll("[data-given]")];
    fillWithClasses(this.controls.given, items.map((item) => item.given), classNames);
    fillWithClasses(this.controls.predicted, items.map((item) => item.predicted), classNames);
    this.clear();  // a browser that reloads a page fills its fields as they were
  }

  clear() {
    for (const name of ["given", "predicted", "text"]) this.controls[name].value = "";
    this.decision = "";
    this.showState();
  }

  /* Show one class or pair; the second time, all again. */
  togglePair(given, predicted) {
    const isOn = this.controls.given.value === given && this.controls.predicted.value === predicted;
    this.controls.given.value = isOn ? "" : given;
    this.controls.predicted.value = isOn ? "" : predicted;
  }

  apply() {
    this.showState();
    const { given, predicted, text, sort } = this.controls;
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    return this.items
      .filter((item) => !given.value || item.given === Number(given.value))
      .filter((item) => !predicted.value || item.predicted === Number(predicted.value))
      .filter((item) => !this.decision || this.marks.decisionOf(item) === this.decision)
      .filter((item) => words.every((word) => item.searched.includes(word)))
      .sort(COMPARE[sort.value]);
  }

  showState() {
    const { given, predicted, text } = this.controls;
    for (const button of this.decisionButtons) {
      button.setAttribute("aria-pressed", button.dataset.filterDecision === this.decision);
    }
    for (const button of this.pairButtons) {
      const { given: row, predicted: column = "" } = button.dataset;
      button.setAttribute("aria-pressed", row === given.value && column === predicted.value);
    }
    const isFiltered = given.value || predicted.value || text.value || this.decision;
    document.getElementById("reset").hidden = !isFiltered;
  }

  showCounts() {
    const counts = this.marks.counts();
    for (const button of this.decisionButtons) {
      const count = counts[button.dataset.filterDecision] ?? this.items.length;
      button.querySelector(".count").textContent = count.toLocaleString("en");
    }
    return counts;
  }
}

function fillWithClasses(select, labels, classNames) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  for (const label of [...counts.keys()].sort((one, two) => one - two)) {
    const name = label < 0 ? "none (unreadable)" : classNames[label];
    select.add(new Option(`${name} (${counts.get(label)})`, label));
  }
}
