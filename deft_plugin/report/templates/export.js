/* The files that Detection.apply_review reads. */
const COLUMNS = ["row", "image_digest", "given_label", "decision", "new_label"];

function reviewRecords(items, marks, classNames) {
  const decided = items.filter((item) => marks.of(item)).sort((one, two) => one.row - two.row);
  return decided.map((item) => {
    const { decision, newLabel } = marks.of(item);
    return {
      row: item.row,
      image_digest: item.digest,
      given_label: classNames[item.given],
      decision,
      new_label: decision === "relabel" ? classNames[newLabel] : "",
    };
  });
}

/* A spreadsheet would compute a name that starts like a formula; Detection.apply_review takes the apostrophe off. */
function guarded(value) {
  return typeof value === "string" && /^'*[=+\-@\t\r]/.test(value) ? `'${value}` : value;
}

function toCsv(records) {
  const quoted = (value) => (/[",;\t\r\n]|^\s|\s$/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const field = (value) => quoted(guarded(value));
  const lines = [COLUMNS, ...records.map((record) => COLUMNS.map((column) => record[column]))];
  return lines.map((line) => line.map(field).join(",") + "\r\n").join("");
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
