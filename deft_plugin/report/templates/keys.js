/* Review by keyboard. Keys are left alone where something is typed, and with Ctrl, Alt or Meta. */
function listenToKeys(gallery, actions) {
  const moves = {
    ArrowLeft: () => gallery.move(-1),
    ArrowRight: () => gallery.move(1),
    ArrowUp: () => gallery.current && gallery.move(-gallery.columns()),
    ArrowDown: () => gallery.current && gallery.move(gallery.columns()),
    Home: () => gallery.move(-Infinity),
    End: () => gallery.move(Infinity),
  };
  const letters = {
    n: () => gallery.move(1),
    p: () => gallery.move(-1),
    k: () => actions.decideAndGoOn("keep"),
    r: () => actions.decideAndGoOn("relabel"),
    d: () => actions.decideAndGoOn("drop"),
    u: () => actions.undo(),
    c: () => actions.chooseLabel(),
    "/": () => document.getElementById("search").focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const isField = event.target.matches("input, select, textarea");
    if (isField && event.key === "Escape") gallery.move(0);
    if (isField) return;
    // Arrows scroll the page and the figures, unless the gallery is what a person looks at.
    const run = letters[event.key.toLowerCase()] ?? (isAtGallery(gallery, event.target) ? moves[event.key] : null);
    if (!run) return;
    event.preventDefault();
    run();
  });
}

function isAtGallery(gallery, target) {
  if (target !== document.body) return gallery.place.contains(target);
  return gallery.place.getBoundingClientRect().top < window.innerHeight * 0.6;
}
