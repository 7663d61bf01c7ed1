/* Cards of images, in lists of 60 that are filled when they are nearly seen: 5,000 cards at once would take seconds,
   and so would the layout of one list of 5,000. Whole rows fit, since there are 1 to 6 columns. */
const BATCH = 60;

class Gallery {
  constructor(data, marks) {
    this.data = data;
    this.marks = marks;
    this.place = document.getElementById("cards");
    this.template = document.getElementById("card").content.firstElementChild;
    this.blocks = new Map();
    this.items = [];
    this.cards = new Map();
    this.selected = -1;
    this.onSelect = () => {};
    const fillSeen = (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => this.fill(entry.target));
    this.observer = new IntersectionObserver(fillSeen, { rootMargin: "1000px" });
    new ResizeObserver(() => this.measure()).observe(this.place);
    this.place.addEventListener("focusin", (event) => this.selectCardOf(event.target));
    this.place.addEventListener("click", (event) => this.selectCardOf(event.target));
  }

  show(items) {
    this.items = items;
    this.cards.clear();
    this.observer.disconnect();
    const lists = Array.from({ length: Math.ceil(items.length / BATCH) }, () => document.createElement("ul"));
    for (const [number, list] of lists.entries()) {
      list.className = "cards";
      list.dataset.start = number * BATCH;
      this.observer.observe(list);
    }
    this.place.replaceChildren(...lists);
    document.getElementById("empty").hidden = items.length > 0;
    this.selected = -1;
    if (items.length) this.select(0);
    else this.onSelect(null);
    this.measure();
  }

  fill(list) {
    if (list.childElementCount || !list.isConnected) return;  // a list of earlier filters may still be told of
    this.observer.unobserve(list);
    const start = Number(list.dataset.start);
    list.append(...this.items.slice(start, start + BATCH).map((item, place) => this.makeCard(item, start + place)));
  }

  /* Lists that are not filled yet are as high as the first one. */
  measure() {
    if (this.items.length > BATCH) this.place.style.setProperty("--list-height", `${this.place.firstChild.offsetHeight}px`);
  }

  makeCard(item, position) {
    const card = this.template.cloneNode(true);
    const names = this.data.classNames;
    card.dataset.row = item.row;
    card.dataset.position = position;
    const picture = this.thumbnail(item);
    const image = card.querySelector("img");
    if (picture) image.src = picture;
    else image.remove();
    card.querySelector(".unreadable").hidden = Boolean(picture);
    write(card, ".given", names[item.given]);
    write(card, ".predicted", item.predicted < 0 ? "–" : names[item.predicted]);
    write(card, ".quality", item.quality.toFixed(3));
    write(card, ".row", `row ${item.row}`);
    write(card, ".file", item.path?.split(/[\\/]/).slice(-2).join("/") ?? "", item.path ?? "");
    card.querySelector(".buttons").setAttribute("aria-label", `Decision on row ${item.row}`);
    for (const button of card.querySelectorAll("[data-decision]")) {
      button.disabled = item.isUnreadable && button.dataset.decision !== "drop";
    }
    this.cards.set(item, card);
    this.showMark(item);
    return card;
  }

  thumbnail(item) {
    const size = this.data.thumbnailsPerBlock;
    const number = Math.floor(item.index / size);
    if (!this.blocks.has(number)) this.blocks.set(number, readJson(`thumbnails-${number}`));
    const text = this.blocks.get(number)[item.index % size];
    return text && `data:image/${this.data.thumbnailFormat};base64,${text}`;
  }

  showMark(item) {
    const card = this.cards.get(item);
    if (!card) return;
    const mark = this.marks.of(item);
    const newLabel = mark?.decision === "relabel" ? this.data.classNames[mark.newLabel] : null;
    card.dataset.mark = mark?.decision ?? "none";
    write(card, ".mark", mark ? (newLabel === null ? mark.decision : `→ ${newLabel}`) : "");
    for (const button of card.querySelectorAll("[data-decision]")) {
      button.setAttribute("aria-pressed", button.dataset.decision === mark?.decision);
    }
    const picked = mark ? `decided: ${mark.decision}${newLabel === null ? "" : ` to ${newLabel}`}` : "not decided";
    const labels = `given ${card.querySelector(".given").textContent}, predicted ${card.querySelector(".predicted").textContent}`;
    card.setAttribute("aria-label", `Row ${item.row}, ${labels}, quality ${item.quality.toFixed(3)}, ${picked}`);
  }

  get current() {
    return this.items[this.selected] ?? null;
  }

  selectCardOf(target) {
    const card = target.closest(".card");
    if (card) this.select(Number(card.dataset.position));
  }

  select(position, { move = false } = {}) {
    if (position !== this.selected) {
      this.setSelected(this.selected, false);
      this.selected = position;
      this.fill(this.place.children[Math.floor(position / BATCH)]);
      this.setSelected(position, true);
      this.onSelect(this.current);
    }
    const card = this.cards.get(this.current);
    if (move && card) {
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }
  }

  setSelected(position, isSelected) {
    const card = this.cards.get(this.items[position]);
    if (!card) return;
    if (isSelected) card.setAttribute("aria-current", "true");
    else card.removeAttribute("aria-current");
    // One card is in the order of Tab: nobody wants to pass the buttons of all of them.
    for (const element of [card, ...card.querySelectorAll("button")]) element.tabIndex = isSelected ? 0 : -1;
  }

  move(steps) {
    const last = this.items.length - 1;
    if (last >= 0) this.select(Math.min(Math.max(this.selected + steps, 0), last), { move: true });
  }

  columns() {
    return getComputedStyle(this.place.firstChild).gridTemplateColumns.split(" ").length;
  }
}

/* Names come from data: they are written as text, never as HTML. */
function write(card, selector, text, title = text) {
  const element = card.querySelector(selector);
  element.textContent = text;
  element.title = title;
}

function readJson(id) {
  const element = document.getElementById(id);
  const value = JSON.parse(element.textContent);
  element.remove();  // its text is as large as what was read
  return value;
}
