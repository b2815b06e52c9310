// Live captions: the microphone goes to the server, words come back while people speak.

import { download } from "./formats.js";
import { loudness, open } from "./microphone.js";
import { liveSocket } from "./server.js";
import { languageName, text } from "./strings.js";

const $ = (id) => document.getElementById(id);
let session = null;
let finals = [];
const sounds = new Set();

export function start() {
  $("listen").addEventListener("click", () => (session ? finish() : begin()));
  for (const button of document.querySelectorAll("[data-live]")) {
    button.addEventListener("click", () => download(transcript(), button.dataset.live, "captions.live"));
  }
  document.addEventListener("tongue", () => {
    show(session ? (session.microphone ? "listening" : "finishing") : null);
    drawSounds();
  });
  show(null);
}

/** The sentences of everything that was said. */
export function transcript() {
  const sentences = finals.flatMap((f) => (f.sentences.length ? f.sentences : [{ text: f.text, start_ms: f.start_ms, end_ms: f.end_ms, words: f.words }]));
  return { text: "", sentences, dur_s: (finals.at(-1)?.end_ms ?? 0) / 1000 };
}

async function begin() {
  const mine = (session = { socket: null, microphone: null, waiting: [] });
  show("listening");
  try {
    mine.microphone = await open((piece) => hear(mine, piece));
  } catch (error) {
    over(mine, text("noMicrophone", { n: error.message }));
    return;
  }
  if (session !== mine) return;
  finals = [];
  $("captions").replaceChildren();
  mine.socket = liveSocket(mine.microphone.rate, $("live-language").value);
  mine.socket.onopen = () => mine.waiting.splice(0).forEach((piece) => mine.socket.send(piece));
  mine.socket.onmessage = ({ data }) => told(mine, JSON.parse(data));
  mine.socket.onclose = ({ code, reason }) => over(mine, code === 1000 ? text("stopped") : reason || text("lost"));
}

function hear(mine, piece) {
  $("level").value = loudness(piece);
  if (mine.socket?.readyState === WebSocket.OPEN) mine.socket.send(piece);
  else if (mine.waiting.length < 300) mine.waiting.push(piece);
}

function finish() {
  const mine = session;
  mine.microphone?.close();
  mine.microphone = null;
  $("level").value = 0;
  if (mine.socket?.readyState === WebSocket.OPEN) {
    mine.socket.send(JSON.stringify({ type: "finish" }));
    show("finishing");
  } else over(mine, text("stopped"));
}

function over(mine, message) {
  if (session !== mine) return;
  session = null;
  mine.microphone?.close();
  mine.socket?.close();
  sounds.clear();
  drawSounds();
  $("level").value = 0;
  partial("", "");
  show(null);
  $("live-state").textContent = message;
}

function told(mine, event) {
  switch (event.type) {
    case "Partial":
      return partial(event.text, event.tentative);
    case "Final":
      partial("", "");
      return final(event);
    case "EventChanged":
      sounds[event.active ? "add" : "delete"](event.label);
      return drawSounds();
    case "error":
      return over(mine, event.error.code === "overloaded" ? text("busy") : event.error.message);
  }
}

function partial(stable, tentative) {
  $("stable").textContent = stable;
  $("tentative").textContent = tentative ? (stable && !/^[\u2e80-\uffef]/.test(tentative.trimStart()) ? " " : "") + tentative.trimStart() : "";
}

function final(event) {
  if (!event.text) return;
  finals.push(event);
  const line = document.createElement("p");
  const label = document.createElement("small");
  label.textContent = languageName(event.lang);
  line.append(label, event.text);
  const box = $("captions");
  const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 40;
  box.append(line);
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function drawSounds() {
  $("sounds").hidden = !sounds.size;
  $("sounds").textContent = [...sounds].map((label) => "♪ " + text(label)).join("  ");
}

function show(state) {
  $("live-state").textContent = state ? text(state) : "";
  $("listen").textContent = text(state === "finishing" ? state : session ? "stopListen" : "listen");
  $("listen").disabled = state === "finishing";
  $("listen").setAttribute("aria-pressed", String(Boolean(session)));
}
