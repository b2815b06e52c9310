// Corrections that were made on this page, kept in the browser by job: they survive a reload and a closed tab.

const PREFIX = "edits:";
const KEPT_DAYS = 90;
let lost = false; // the browser did not take the last correction

const read = (id) => {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + id)) ?? {};
  } catch {
    return {};
  }
};

/** Put the corrections of a job into its transcript. */
export function apply(id, transcript) {
  for (const [index, text] of Object.entries(read(id).texts ?? {})) {
    const sentence = transcript.sentences[index];
    if (sentence) Object.assign(sentence, { text, edited: true });
  }
}

export function keep(id, index, text) {
  const texts = { ...read(id).texts, [index]: text };
  try {
    localStorage.setItem(PREFIX + id, JSON.stringify({ at: Date.now(), texts }));
    lost = false;
  } catch {
    lost = true; // full, or not allowed
  }
}

export const forget = (id) => localStorage.removeItem(PREFIX + id);

/** Something would be gone with the tab. */
export const unsaved = () => lost;

/** Jobs are deleted on the server some day, and other keys have other jobs: only age tells what nobody needs. */
export function tidy() {
  const ids = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length));
  for (const id of ids) if (Date.now() - (read(id).at ?? 0) > KEPT_DAYS * 86400_000) forget(id);
}
