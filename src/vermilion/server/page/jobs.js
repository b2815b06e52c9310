// The list of recordings: sent, followed, shown; the server has it, so that every tab does.

import * as edits from "./edits.js";
import { ask, follow, submit } from "./server.js";
import { text } from "./strings.js";
import * as viewer from "./viewer.js";

const $ = (id) => document.getElementById(id);
const entries = [];
let chosen = null;
let complain = () => {};

export function start(fail) {
  complain = fail;
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const again = $("file").again;
    $("file").again = null;
    const files = [...$("file").files];
    $("file").value = "";
    if (again && files[0]) return listen(again, files[0]);
    files.forEach(add);
  });
  $("again").addEventListener("click", () => {
    $("file").again = chosen;
    $("file").click();
  });
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (e) => dragged(e, true));
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, (e) => dragged(e, false));
  document.addEventListener("drop", (event) => [...event.dataTransfer.files].forEach(add));
  document.addEventListener("tongue", () => {
    entries.forEach(draw);
    count();
  });
}

/** The newest jobs of the server: those that this tab sent, and the others below; what was shown is shown again. */
export async function restore() {
  edits.tidy();
  let found;
  try {
    found = await ask("/v1/jobs?limit=100");
  } catch (error) {
    if (error.status !== 401) complain(error); // without a key, the page asks for one
    return;
  }
  const sent = JSON.parse(sessionStorage.getItem("jobs") || "[]");
  for (const job of found.data.reverse()) {
    if (entries.some((entry) => entry.job?.id === job.id)) continue;
    const entry = place({ name: job.file.name, job, earlier: !sent.includes(job.id) });
    if (!over(job)) watch(entry);
    else if (job.id === sessionStorage.getItem("open")) select(entry);
  }
}

const over = (job) => ["succeeded", "failed", "cancelled"].includes(job?.status);

/** A recording is on its way to the server, and would be lost with the tab. */
export const sending = () => entries.some((entry) => !entry.job && !entry.problem);

export async function add(file) {
  const entry = place({ name: file.name, file, share: 0 });
  try {
    entry.job = await submit(file, $("language").value, (share) => {
      entry.share = share;
      draw(entry);
    });
    remember();
    await watch(entry);
  } catch (error) {
    entry.problem = error.message;
    draw(entry);
    complain(error);
  }
}

function dragged(event, inside) {
  event.preventDefault();
  $("drop").classList.toggle("over", inside);
}

function listen(entry, file) {
  entry.file = file;
  select(entry);
}

async function watch(entry) {
  draw(entry);
  try {
    await follow(entry.job.id, (name, data) => told(entry, name, data), () => ($("spoken").textContent = text("lost")));
  } catch (error) {
    complain(error);
  }
}

function told(entry, name, data) {
  if (name === "segment") return;
  entry.job = data;
  draw(entry);
  if (name === "done") {
    $("spoken").textContent = text("finished", { n: entry.name });
    if (data.status === "succeeded" && (!chosen || chosen === entry || !chosen.transcript)) select(entry);
  }
}

async function select(entry) {
  if (entry.job?.status !== "succeeded") return;
  try {
    if (!entry.transcript) {
      const transcript = await ask(`/v1/jobs/${entry.job.id}/transcript`);
      edits.apply(entry.job.id, transcript);
      entry.transcript = transcript;
    }
  } catch (error) {
    complain(error);
    return;
  }
  chosen = entry;
  sessionStorage.setItem("open", entry.job.id);
  viewer.show(entry.name, entry.transcript, entry.file, (index, text) => edits.keep(entry.job.id, index, text));
  entries.forEach((other) => other.item.classList.toggle("chosen", other === entry));
}

async function remove(entry) {
  const running = entry.job && !over(entry.job);
  if (entry.job) await ask(`/v1/jobs/${entry.job.id}`, { method: "DELETE" }).catch(complain);
  if (running) return; // the stream tells that it is cancelled
  entry.item.remove();
  entries.splice(entries.indexOf(entry), 1);
  if (entry.job) edits.forget(entry.job.id);
  remember();
  count();
  if (chosen === entry) {
    chosen = null;
    viewer.hide();
  }
}

function remember() {
  sessionStorage.setItem("jobs", JSON.stringify(entries.filter((e) => e.job && !e.earlier).map((e) => e.job.id)));
}

function count() {
  const n = entries.filter((entry) => entry.earlier).length;
  $("earlier").hidden = !n;
  $("earlier-count").textContent = text("earlier", { n });
}

function place(entry) {
  const item = (entry.item = document.createElement("li"));
  item.innerHTML = '<button class="name" type="button"></button><button class="end" type="button"></button><span class="state quiet"></span><progress max="1"></progress>';
  item.querySelector(".name").addEventListener("click", () => select(entry));
  item.querySelector(".end").addEventListener("click", () => remove(entry));
  entries.push(entry);
  $(entry.earlier ? "earlier-jobs" : "jobs").prepend(item);
  count();
  draw(entry);
  return entry;
}

function draw(entry) {
  const { item, job } = entry;
  const ended = entry.problem || over(job);
  item.querySelector(".name").textContent = entry.name;
  item.querySelector(".name").setAttribute("aria-label", text("open", { n: entry.name }));
  item.querySelector(".end").textContent = text(ended ? "remove" : "cancel");
  item.querySelector(".end").disabled = !job && !entry.problem;
  item.querySelector(".state").textContent = state(entry);
  const bar = item.querySelector("progress");
  bar.hidden = Boolean(ended);
  bar.value = job ? 0.1 + 0.9 * job.progress : 0.1 * (entry.share ?? 0);
  bar.setAttribute("aria-label", entry.name);
}

function state({ problem, job, share }) {
  if (problem) return `${text("failed")}: ${problem}`;
  if (!job) return text("upload", { n: Math.round(100 * (share ?? 0)) });
  if (job.status === "succeeded") return text("succeeded", { n: Math.max(0.1, job.finished_at - job.started_at).toFixed(1) });
  if (job.status === "failed") return `${text("failed")}: ${job.error?.message ?? ""}`;
  if (job.status === "cancelled") return text("cancelled");
  if (job.status === "queued") return job.position ? text("position", { n: job.position }) : text("queued");
  return text(job.stage, { done: job.segments_done, total: job.segments_total ?? "?" });
}
