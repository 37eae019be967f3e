// The search in the address of the page, behind the #, which is not sent to any server: for links and for going back.

/** What the address says: query, settings and the filter as text. */
export function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const settings = {};
  for (const [name, value] of given) {
    if (name === "q" || name === "where") continue;
    try {
      settings[name] = JSON.parse(value);
    } catch {
      settings[name] = value;
    }
  }
  return { query: given.get("q") ?? "", where: given.get("where") ?? "", settings };
}

/** Let the address say it. */
export function toAddress(query, settings, where) {
  const given = new URLSearchParams();
  if (query) given.set("q", query);
  for (const [name, value] of Object.entries(settings)) given.set(name, typeof value === "string" ? value : JSON.stringify(value));
  if (where) given.set("where", where);
  const text = given.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname);
}
