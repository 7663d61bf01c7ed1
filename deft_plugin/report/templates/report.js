/* Puts the page together. */
function readPage() {
  const page = readJson("page-data");
  const classNames = page.class_names;
  const items = page.row.map((row, index) => {
    const columns = [page.given, page.predicted, page.path, page.decision];
    const [given, predicted, path, decision] = columns.map((column) => column[index]);
    const words = [path ?? "", `row ${row}`, classNames[given], classNames[predicted] ?? "unreadable"];
    return {
      index, row, given, predicted, path,
      quality: page.quality[index],
      digest: page.digest[index],
      isUnreadable: predicted < 0,
      earlier: decision === "none" ? null : { decision, ...(decision === "relabel" && { newLabel: predicted }) },
      searched: words.join("\n").toLowerCase(),
    };
  });
  const { key, thumbnail_format: thumbnailFormat, thumbnails_per_block: thumbnailsPerBlock } = page;
  return { key, classNames, items, thumbnailFormat, thumbnailsPerBlock };
}

class Review {
  constructor(data) {
    this.data = data;
    this.storage = new MarkStorage(data.key);
    this.marks = new Marks(data.items, data.classNames.length, this.storage);
    this.filters = new Filters(data.items, data.classNames, this.marks);
    this.gallery = new Gallery(data, this.marks);
    this.newLabel = document.getElementById("new-label");
    data.classNames.forEach((name, label) => this.newLabel.add(new Option(name, label)));
    this.gallery.onSelect = (item) => this.showSelected(item);
    this.listen();
    this.refilter();
    this.showProgress();
    this.warnIfNotKept();
  }

  listen() {
    const on = (id, event, run) => document.getElementById(id).addEventListener(event, run);
    for (const id of ["filter-given", "filter-predicted", "sort"]) on(id, "change", () => this.refilter());
    on("search", "input", () => this.refilter());
    on("reset", "click", () => { this.filters.clear(); this.refilter(); });
    on("new-label", "change", () => this.relabel(this.newLabel.value));
    on("undo", "click", () => this.undo());
    on("export-csv", "click", () => download("review.csv", "text/csv", toCsv(this.records())));
    on("export-json", "click", () => download("review.json", "application/json", JSON.stringify(this.records(), null, 1)));
    document.querySelector(".toolbar").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("click", (event) => this.clicked(event.target.closest("button")));
    listenToKeys(this.gallery, this);
  }

  clicked(button) {
    if (!button) return;
    const { decision, filterDecision, given, predicted = "" } = button.dataset;
    if (decision) this.toggle(decision);
    if (filterDecision !== undefined) {
      this.filters.decision = filterDecision;
      this.refilter();
    }
    if (given) {
      this.filters.togglePair(given, predicted);
      this.refilter();
      document.querySelector(".gallery").scrollIntoView();
    }
  }

  refilter() {
    const items = this.filters.apply();
    this.gallery.show(items);
    const [shown, all] = [items.length, this.data.items.length].map((number) => number.toLocaleString("en"));
    document.getElementById("shown").textContent = shown === all ? `${all} images` : `${shown} of ${all} images`;
  }

  /* The mark that a decision makes; null if it cannot be, and then it is said why. */
  markFor(item, decision) {
    if (item.isUnreadable && decision !== "drop") return this.say(`Row ${item.row} cannot be read: it can only be dropped.`);
    if (decision !== "relabel") return { decision };
    const earlier = this.marks.of(item);
    const newLabel = earlier?.decision === "relabel" ? earlier.newLabel : item.predicted;
    if (newLabel !== item.given) return { decision, newLabel };
    this.newLabel.focus();
    return this.say(`The predicted label of row ${item.row} is the given one: choose a new label.`);
  }

  decide(mark) {
    const item = this.gallery.current;
    this.marks.set(item, mark);
    this.sayDecision(item);
    this.changed(item);
  }

  sayDecision(item) {
    const mark = this.marks.of(item);
    const to = mark?.decision === "relabel" ? ` to ${this.data.classNames[mark.newLabel]}` : "";
    this.say(`Row ${item.row}: ${mark?.decision ?? "not decided"}${to}`);
  }

  relabel(label) {
    if (label) this.decide({ decision: "relabel", newLabel: Number(label) });
  }

  decideAndGoOn(decision) {
    const mark = this.gallery.current && this.markFor(this.gallery.current, decision);
    if (!mark) return;
    this.decide(mark);
    this.gallery.move(1);
  }

  toggle(decision) {
    const item = this.gallery.current;
    const mark = this.marks.decisionOf(item) === decision ? null : this.markFor(item, decision);
    if (mark || this.marks.decisionOf(item) === decision) this.decide(mark);
  }

  undo() {
    const item = this.marks.undo();
    if (!item) return;
    this.sayDecision(item);
    this.changed(item);
    const position = this.gallery.items.indexOf(item);
    if (position >= 0) this.gallery.select(position, { move: true });
  }

  chooseLabel() {
    if (!this.newLabel.disabled) this.newLabel.focus();
  }

  changed(item) {
    this.gallery.showMark(item);
    this.showSelected(this.gallery.current);
    this.showProgress();
    this.warnIfNotKept();
  }

  warnIfNotKept() {
    if (!this.storage.works) this.say("This browser does not keep your decisions: export them before you close the page.");
  }

  showSelected(item) {
    document.getElementById("selected").textContent = item ? `Row ${item.row}, given ${this.data.classNames[item.given]}` : "";
    this.newLabel.disabled = !item || item.isUnreadable;
    if (!item) return;
    for (const option of this.newLabel.options) option.disabled = option.value === String(item.given);
    this.newLabel.value = this.marks.of(item)?.newLabel ?? "";
  }

  showProgress() {
    const { none } = this.filters.showCounts();
    const [done, all] = [this.data.items.length - none, this.data.items.length].map((number) => number.toLocaleString("en"));
    document.getElementById("progress").textContent = `${done} of ${all} decided`;
    document.getElementById("undo").disabled = this.marks.history.length === 0;
    for (const id of ["export-csv", "export-json"]) document.getElementById(id).disabled = none === this.data.items.length;
  }

  records() {
    return reviewRecords(this.data.items, this.marks, this.data.classNames);
  }

  say(text) {
    document.getElementById("said").textContent = text;
    return null;
  }
}

const review = new Review(readPage());
document.documentElement.dataset.ready = "true";
performance.mark("report-ready");
