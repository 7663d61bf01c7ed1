"use strict";

/* What a person decides. A mark is {decision, newLabel}; newLabel is the index of a class, for "relabel" only. */
class Marks {
  constructor(items, numClasses, storage) {
    this.items = items;
    this.storage = storage;
    this.history = [];
    this.marks = new Map(items.filter((item) => item.earlier).map((item) => [item.row, item.earlier]));
    const byRow = new Map(items.map((item) => [item.row, item]));
    for (const [row, mark] of storage.load()) {
      if (byRow.has(row) && Marks.isPossible(byRow.get(row), mark, numClasses)) this.marks.set(row, mark);
    }
  }

  static isPossible(item, { decision, newLabel }, numClasses) {
    if (decision === "drop") return true;
    if (item.isUnreadable) return false;
    if (decision === "keep") return true;
    const isClass = Number.isInteger(newLabel) && newLabel >= 0 && newLabel < numClasses;
    return decision === "relabel" && isClass && newLabel !== item.given;
  }

  of(item) {
    return this.marks.get(item.row) ?? null;
  }

  decisionOf(item) {
    return this.of(item)?.decision ?? "none";
  }

  set(item, mark) {
    this.history.push({ item, before: this.of(item) });
    this.put(item, mark);
  }

  /* Take the last mark back; gives the item it was on. */
  undo() {
    const last = this.history.pop();
    if (!last) return null;
    this.put(last.item, last.before);
    return last.item;
  }

  /* Without a mark, a decision of an earlier review holds again. */
  put(item, mark) {
    const left = mark ?? item.earlier;
    if (left) this.marks.set(item.row, left);
    else this.marks.delete(item.row);
    this.storage.save(this.marks);
  }

  counts() {
    const counts = { none: 0, keep: 0, relabel: 0, drop: 0 };
    for (const item of this.items) counts[this.decisionOf(item)] += 1;
    return counts;
  }
}

/* Keeps marks in the browser. A browser may refuse that to a page from file://, or have no space left. */
class MarkStorage {
  constructor(key) {
    this.key = `deft-review-${key}`;
    this.works = true;
  }

  load() {
    try {
      const found = JSON.parse(localStorage.getItem(this.key) ?? "[]");
      return found.filter((entry) => Array.isArray(entry) && entry[1] && typeof entry[1] === "object");
    } catch {
      this.works = false;
      return [];
    }
  }

  save(marks) {
    try {
      localStorage.setItem(this.key, JSON.stringify([...marks]));
      this.works = true;
    } catch {
      this.works = false;
    }
  }
}
