// Talks to the server: JSON, uploads with progress, events of a job.

let key = sessionStorage.getItem("key") || "";

export const apiKey = () => key;
export function useKey(value) {
  key = value.trim();
  sessionStorage.setItem("key", key);
}

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

export class ServerError extends Error {
  constructor(status, body) {
    super(body?.error?.message || `HTTP ${status}`);
    this.status = status;
  }
}

export async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new ServerError(answer.status, body);
  return body;
}

/** Send a file as a job; fetch tells no progress of an upload, so this is an XMLHttpRequest. */
export function submit(file, language, progress) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("language", language);
    form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/jobs");
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 202) resolve(request.response);
      else reject(new ServerError(request.status, request.response));
    };
    request.onerror = () => reject(new ServerError(0, null));
    request.send(form);
  });
}

/** Follow a job to its end; a stream that breaks is opened again. */
export async function follow(id, tell, lost) {
  for (let failures = 0; ; ) {
    try {
      for await (const [name, data] of events(`/v1/jobs/${id}/events`)) {
        failures = 0;
        tell(name, data);
        if (name === "done") return;
      }
      const job = await ask(`/v1/jobs/${id}`);
      if (["succeeded", "failed", "cancelled"].includes(job.status)) return tell("done", job);
    } catch (error) {
      if (error.status === 404 || error.status === 401) throw error;
      failures += 1;
      lost();
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(10000, 500 * 2 ** failures)));
  }
}

/** Server-sent events by fetch: EventSource cannot send a key. */
async function* events(path) {
  const answer = await fetch(path, { headers: headers() });
  if (!answer.ok) throw new ServerError(answer.status, await answer.json().catch(() => null));
  let rest = "";
  for await (const chunk of chunks(answer.body.pipeThrough(new TextDecoderStream()))) {
    rest += chunk;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data")) yield [field("event"), JSON.parse(field("data"))];
    }
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

export function liveSocket(rate, language) {
  const query = new URLSearchParams({ rate: String(rate), language });
  const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/live?${query}`;
  const socket = new WebSocket(address, key ? ["vermilion", `key.${key}`] : ["vermilion"]);
  socket.binaryType = "arraybuffer";
  return socket;
}
