// The page as a whole: tabs, languages, light and dark, the key, recording.

import * as edits from "./edits.js";
import * as jobs from "./jobs.js";
import * as live from "./live.js";
import { loudness, open, wav } from "./microphone.js";
import { ask, useKey } from "./server.js";
import { change, languageName, text, write } from "./strings.js";
import * as viewer from "./viewer.js";

const $ = (id) => document.getElementById(id);
const COMMON = ["zh", "en", "yue", "ja", "ko", "fr", "de", "es", "ru", "ar"];
let about = { languages: null, limits: {}, models: {}, auth: false };
let recording = null;

function theme(value) {
  document.documentElement.dataset.theme = value;
  $("theme").textContent = value === "dark" ? "☀" : "☾";
  document.dispatchEvent(new Event("theme"));
}

function tabs() {
  const all = [...document.querySelectorAll('[role="tab"]')];
  const choose = (tab) => {
    for (const other of all) {
      const mine = other === tab;
      other.setAttribute("aria-selected", String(mine));
      other.tabIndex = mine ? 0 : -1;
      $(other.getAttribute("aria-controls")).hidden = !mine;
    }
  };
  for (const [i, tab] of all.entries()) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const next = all[(i + step + all.length) % all.length];
      choose(next);
      next.focus();
    });
  }
}

function fail(error) {
  if (error.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  const wrong = error.status === 401 && $("key").value;
  $("notice").textContent = wrong ? text("wrongKey") : error.message;
  $("notice").hidden = false;
}

function languages() {
  const codes = about.languages ?? COMMON;
  const sorted = [...new Set(codes)].map((code) => [code, languageName(code)]).sort((a, b) => a[1].localeCompare(b[1]));
  for (const id of ["language", "live-language"]) {
    const before = $(id).value;
    const option = (value, name) => Object.assign(document.createElement("option"), { value, textContent: name });
    $(id).replaceChildren(option("", text("auto")), ...sorted.map(([code, name]) => option(code, name)));
    $(id).value = before;
  }
}

function describe() {
  languages();
  const { upload_bytes: bytes, audio_seconds: seconds } = about.limits;
  const size = bytes >= 1 << 30 ? `${+(bytes / (1 << 30)).toFixed(1)} GB` : `${Math.round(bytes / (1 << 20))} MB`;
  $("limits").textContent = bytes ? text("limits", { size, hours: +(seconds / 3600).toFixed(1) }) : "";
  $("models").textContent = about.models.asr ?? "";
  $("record").textContent = text(recording ? "stopRecord" : "record");
}

async function record() {
  if (recording) {
    const { microphone, pieces } = recording;
    recording = null;
    await microphone.close();
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
    jobs.add(wav(pieces, microphone.rate, `recording ${stamp}.wav`));
  } else {
    const pieces = [];
    try {
      const microphone = await open((piece) => {
        pieces.push(piece);
        $("record").style.opacity = String(0.6 + 0.4 * loudness(piece));
      });
      recording = { microphone, pieces };
    } catch (error) {
      fail(new Error(text("noMicrophone", { n: error.message })));
    }
  }
  $("record").style.opacity = "";
  $("record").setAttribute("aria-pressed", String(Boolean(recording)));
  describe();
}

async function main() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(localStorage.getItem("theme") || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => localStorage.getItem("theme") || theme(dark.matches ? "dark" : "light"));
  $("theme").addEventListener("click", () => {
    theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    localStorage.setItem("theme", document.documentElement.dataset.theme);
  });
  $("tongue").addEventListener("click", change);
  document.addEventListener("tongue", describe);
  $("record").addEventListener("click", record);
  addEventListener("beforeunload", (event) => {
    if (recording || jobs.sending() || edits.unsaved()) event.preventDefault();
  });
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey($("key").value);
    $("notice").hidden = true;
    $("key-form").hidden = true;
    jobs.restore();
  });
  write();
  tabs();
  viewer.start();
  live.start();
  jobs.start(fail);
  try {
    about = await ask("/v1/server");
    if (about.auth && !sessionStorage.getItem("key")) $("key-form").hidden = false;
  } catch (error) {
    fail(error);
  }
  describe();
  jobs.restore();
}

main();
