// The list of recordings: sent, followed, shown; it survives a reload.

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
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (e) => over(e, true));
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, (e) => over(e, false));
  document.addEventListener("drop", (event) => [...event.dataTransfer.files].forEach(add));
  document.addEventListener("tongue", () => entries.forEach(draw));
}

/** What this tab sent before it was loaded again. */
export function restore() {
  for (const id of JSON.parse(sessionStorage.getItem("jobs") || "[]")) {
    ask(`/v1/jobs/${id}`).then((job) => watch(place({ name: job.file.name, job }))).catch(() => forget(id));
  }
}

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

function over(event, inside) {
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
    entry.transcript ??= await ask(`/v1/jobs/${entry.job.id}/transcript`);
  } catch (error) {
    complain(error);
    return;
  }
  chosen = entry;
  viewer.show(entry.name, entry.transcript, entry.file);
  entries.forEach((other) => other.item.classList.toggle("chosen", other === entry));
}

async function remove(entry) {
  const running = entry.job && !["succeeded", "failed", "cancelled"].includes(entry.job.status);
  if (entry.job) await ask(`/v1/jobs/${entry.job.id}`, { method: "DELETE" }).catch(complain);
  if (running) return; // the stream tells that it is cancelled
  entry.item.remove();
  entries.splice(entries.indexOf(entry), 1);
  remember();
  if (chosen === entry) {
    chosen = null;
    viewer.hide();
  }
}

function remember() {
  sessionStorage.setItem("jobs", JSON.stringify(entries.filter((e) => e.job).map((e) => e.job.id)));
}

function forget(id) {
  const rest = JSON.parse(sessionStorage.getItem("jobs") || "[]").filter((other) => other !== id);
  sessionStorage.setItem("jobs", JSON.stringify(rest));
}

function place(entry) {
  const item = (entry.item = document.createElement("li"));
  item.innerHTML = '<button class="name" type="button"></button><button class="end" type="button"></button><span class="state quiet"></span><progress max="1"></progress>';
  item.querySelector(".name").addEventListener("click", () => select(entry));
  item.querySelector(".end").addEventListener("click", () => remove(entry));
  entries.push(entry);
  $("jobs").prepend(item);
  draw(entry);
  return entry;
}

function draw(entry) {
  const { item, job } = entry;
  const over = entry.problem || ["succeeded", "failed", "cancelled"].includes(job?.status);
  item.querySelector(".name").textContent = entry.name;
  item.querySelector(".name").setAttribute("aria-label", text("open", { n: entry.name }));
  item.querySelector(".end").textContent = text(over ? "remove" : "cancel");
  item.querySelector(".end").disabled = !job && !entry.problem;
  item.querySelector(".state").textContent = state(entry);
  const bar = item.querySelector("progress");
  bar.hidden = Boolean(over);
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
