// A transcript with its recording: waveform, timeline, words that can be heard and corrected.

import { download } from "./formats.js";
import { flagMeaning, languageName, text } from "./strings.js";
import WaveSurfer from "./wavesurfer.esm.js";

const $ = (id) => document.getElementById(id);
const UNSURE = 0.5;
const LONG_SECONDS = 3600; // longer recordings are not decoded for their waveform: the tab would need gigabytes
const WIDEST = 30000; // pixels
let shown = null; // { name, transcript, words: [{ element, start, end }] }
let wave = null;
let changed = () => {}; // told of every correction

export function start() {
  for (const button of document.querySelectorAll("[data-format]")) {
    button.addEventListener("click", () => shown && download(shown.transcript, button.dataset.format, shown.name));
  }
  $("play").addEventListener("click", toggle);
  $("zoom").addEventListener("input", zoom);
  $("transcript").addEventListener("click", (event) => clicked(event.target));
  $("transcript").addEventListener("input", (event) => edited(event.target.closest(".text")));
  $("transcript").addEventListener("keydown", editing);
  $("strip").addEventListener("keydown", moved);
  document.addEventListener("keydown", anywhere);
  document.addEventListener("tongue", () => shown && draw());
  document.addEventListener("theme", () => wave?.setOptions(colors()));
}

export function hide() {
  wave?.destroy();
  wave = shown = null;
  $("viewer").hidden = true;
}

/** Show a transcript; `file` is the recording, if the page still has it; `tell` gets a sentence's number and text. */
export function show(name, transcript, file, tell) {
  changed = tell;
  wave?.destroy();
  wave = null;
  shown = { name, transcript, words: [], duration: transcript.dur_s };
  $("viewer").hidden = false;
  $("viewer-name").textContent = name;
  $("no-audio").hidden = Boolean(file);
  $("zoom").value = 0;
  $("inner").style.width = "100%";
  draw();
  $("play").disabled = true;
  if (file) listen(file);
}

function colors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  return { waveColor: color("--quiet"), progressColor: color("--accent"), cursorColor: color("--accent") };
}

function listen(file) {
  const audio = new Audio(URL.createObjectURL(file));
  const long = shown.duration > LONG_SECONDS;
  const mine = (wave = WaveSurfer.create({
    container: "#wave", height: 96, media: audio, ...colors(), cspNonce: document.querySelector("meta[name=style-nonce]").content,
    hideScrollbar: true, ...(long ? { peaks: [new Float32Array(2)], duration: shown.duration } : {}),
  }));
  mine.on("ready", () => ($("play").disabled = false));
  mine.on("timeupdate", (time) => tick(time));
  mine.on("play", () => label(true));
  mine.on("pause", () => label(false));
  mine.on("error", () => {}); // a format that this browser does not play: the transcript is still there
}

const label = (playing) => ($("play").textContent = text(playing ? "pause" : "play"));

function draw() {
  label(Boolean(wave?.isPlaying()));
  lanes();
  const found = shown.transcript.sentences;
  shown.words = [];
  $("transcript").replaceChildren(...found.map(row));
  const notes = [...(shown.transcript.warnings ?? []), ...(shown.transcript.failures ?? []).map((f) => f.message)];
  if (!found.length && !notes.length) notes.push(text("nothing"));
  $("warnings").replaceChildren(...notes.map((note) => make("li", {}, note)));
  tick(wave?.getCurrentTime() ?? 0);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return (h ? `${h}:${String(m).padStart(2, "0")}` : m) + ":" + String(s).padStart(2, "0");
}

// ---- timeline

function lanes() {
  const { transcript } = shown;
  const speech = transcript.vad_segments_ms.map(([start, end]) => ({ start, end, kind: "speech", title: text("speech") }));
  const events = (transcript.events ?? []).filter((e) => e.label !== "speech")
    .map((e) => ({ start: e.start_ms, end: e.end_ms, kind: e.label, title: text(e.label) ?? e.label, inside: true }));
  const languages = (transcript.languages ?? [])
    .map((l) => ({ start: l.start_ms, end: l.end_ms, kind: "language", title: languageName(l.lang), inside: true }));
  for (const [id, spans] of [["lane-speech", speech], ["lane-event", events], ["lane-language", languages]]) {
    $(id).replaceChildren(...spans.map(block));
    $(id).hidden = !spans.length;
  }
  const kinds = ["speech", "music", "singing"].map((kind) => make("span", {}, make("i", { className: kind }), text(kind)));
  const rest = [["language", "spoken"], ["low", "low"]].map(([kind, name]) => make("span", {}, make("i", { className: kind }), text(name)));
  $("legend").replaceChildren(...kinds, ...rest);
}

function block({ start, end, kind, title, inside }) {
  const element = make("span", { className: kind, title: `${title} ${clock(start / 1000)}–${clock(end / 1000)}` }, inside ? title : "");
  element.style.left = `${(start / 10 / shown.duration).toFixed(3)}%`;
  element.style.width = `${((end - start) / 10 / shown.duration).toFixed(3)}%`;
  element.addEventListener("click", () => seek(start / 1000, true));
  return element;
}

/** From everything at once to 100 pixels per second. */
function zoom() {
  const least = $("strip").clientWidth;
  const most = Math.max(least, Math.min(WIDEST, shown.duration * 100));
  const middle = (wave?.getCurrentTime() ?? 0) / shown.duration;
  const width = least * (most / least) ** ($("zoom").value / 100);
  $("inner").style.width = `${width}px`;
  $("strip").scrollLeft = middle * width - least / 2;
}

// ---- text

function row(sentence) {
  const at = clock(sentence.start_ms / 1000);
  const time = make("button", { className: "time mono", type: "button" }, at);
  time.setAttribute("aria-label", text("playFrom", { n: at }));
  time.addEventListener("click", () => seek(sentence.start_ms / 1000, true));
  const line = make("div", { className: "text", contentEditable: "true", spellcheck: false });
  line.setAttribute("role", "textbox");
  line.setAttribute("aria-label", text("edit", { n: at }));
  if (sentence.lang) line.lang = sentence.lang.split(" ")[0];
  line.append(...(sentence.edited ? [sentence.text] : spelled(sentence)));
  const item = make("li", { className: sentence.edited ? "edited" : "" }, time, line, ...remarks(sentence.flags ?? []));
  item.sentence = sentence;
  return item;
}

/** A mark whose tooltip gives the reasons; nothing where there are none. */
function remarks(flags) {
  if (!flags.length) return [];
  const reasons = flags.map(flagMeaning).join("; ");
  const mark = make("span", { className: "flag", title: reasons, tabIndex: 0 }, "⚠");
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", reasons);
  return [mark];
}

/** The sentence's own text, its words found in it one after the other. */
function spelled(sentence) {
  const whole = sentence.text;
  const lower = whole.toLowerCase();
  const parts = [];
  let at = 0;
  for (const word of sentence.words ?? []) {
    const found = lower.indexOf(word.text.toLowerCase(), at);
    if (found < 0 || lower.length !== whole.length) continue;
    if (found > at) parts.push(whole.slice(at, found));
    at = found + word.text.length;
    const element = make("span", { className: "word" }, whole.slice(found, at));
    if (word.confidence != null && word.confidence < UNSURE) element.classList.add("low");
    element.start = word.start_ms / 1000;
    shown.words.push({ element, start: word.start_ms / 1000, end: word.end_ms / 1000 });
    parts.push(element);
  }
  parts.push(whole.slice(at));
  return parts;
}

function clicked(target) {
  if (target.classList.contains("word")) seek(target.start, true);
}

function edited(line) {
  const item = line.parentElement;
  item.sentence.text = line.textContent.replaceAll("\u00a0", " ").trim();
  item.sentence.edited = true;
  item.classList.add("edited");
  changed(shown.transcript.sentences.indexOf(item.sentence), item.sentence.text);
}

function editing(event) {
  if (event.key !== "Enter" || !event.target.classList.contains("text")) return;
  event.preventDefault(); // a sentence is one line
  if (event.ctrlKey || event.metaKey) {
    const word = getSelection().anchorNode?.parentElement?.closest(".word");
    seek(word?.start ?? event.target.parentElement.sentence.start_ms / 1000, true);
  }
}

// ---- sound

function seek(seconds, play) {
  if (!wave) return;
  wave.setTime(Math.max(0, Math.min(seconds, shown.duration)));
  if (play) wave.play().catch(() => {});
}

const toggle = () => wave?.playPause();

function moved(event) {
  const step = { ArrowLeft: -5, ArrowRight: 5 }[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  seek((wave?.getCurrentTime() ?? 0) + step, false);
}

function anywhere(event) {
  if (!shown || $("files").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("button, input, select, a, [contenteditable]")) return;
  if (event.key === " ") {
    event.preventDefault();
    toggle();
  } else moved(event);
}

function tick(time) {
  $("clock").textContent = `${clock(time)} / ${clock(shown?.duration ?? 0)}`;
  let last = null;
  for (const word of shown?.words ?? []) {
    const now = time >= word.start && time < word.end && time > 0;
    word.element.classList.toggle("now", now && !last);
    if (now) last ??= word.element;
  }
}
