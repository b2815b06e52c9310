// A transcript as SRT, VTT, TXT or JSON, with the corrections that were made on the page.

const COLUMNS = 42;
const LINES = 2;

/** 3661.5 → 01:01:01,500; rounds to the nearest millisecond as a whole, so that no second has 1000. */
export function stamp(ms, mark) {
  const whole = Math.max(0, Math.round(ms));
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600000), Math.floor(whole / 60000) % 60, Math.floor(whole / 1000) % 60];
  return `${two(h)}:${two(m)}:${two(s)}${mark}${String(whole % 1000).padStart(3, "0")}`;
}

const isWide = (c) => /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u.test(c) || c.codePointAt(0) >= 0x20000;
export const width = (text) => [...text].reduce((sum, c) => sum + (isWide(c) ? 2 : 1), 0);

/** Pieces between which a line may break: words with their blanks, single wide characters with their marks. */
function pieces(text) {
  return text.match(/[^\s\u2e80-\u303e\u3041-\ua4cf\uf900-\ufaff\uff00-\uffef]+\s*|.[\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a\u201d\u2019\uff09]*\s*/gsu) || [];
}

/** Lines of at most 42 columns; a word that is longer has a line of its own. */
export function wrap(text) {
  const lines = [];
  let line = "";
  for (const piece of pieces(text.trim())) {
    if (line && width((line + piece).trimEnd()) > COLUMNS) {
      lines.push(line.trim());
      line = "";
    }
    line += piece;
  }
  if (line.trim()) lines.push(line.trim());
  return lines;
}

/** Cues of at most two lines; the time of a long sentence is shared by the length of its parts. */
export function cues(sentences) {
  const found = [];
  for (const sentence of sentences) {
    const lines = wrap(sentence.text);
    const total = lines.reduce((sum, line) => sum + width(line), 0) || 1;
    let start = sentence.start_ms;
    for (let i = 0; i < lines.length; i += LINES) {
      const part = lines.slice(i, i + LINES);
      const share = part.reduce((sum, line) => sum + width(line), 0) / total;
      const last = i + LINES >= lines.length;
      const end = last ? sentence.end_ms : start + share * (sentence.end_ms - sentence.start_ms);
      found.push({ start, end, text: part.join("\n") });
      start = end;
    }
  }
  return found;
}

export function srt(transcript) {
  return cues(transcript.sentences)
    .map((cue, i) => `${i + 1}\n${stamp(cue.start, ",")} --> ${stamp(cue.end, ",")}\n${cue.text}\n`)
    .join("\n");
}

export function vtt(transcript) {
  const safe = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const parts = cues(transcript.sentences).map((cue) => `${stamp(cue.start, ".")} --> ${stamp(cue.end, ".")}\n${safe(cue.text)}\n`);
  return ["WEBVTT\n", ...parts].join("\n");
}

export const txt = (transcript) => transcript.sentences.map((sentence) => sentence.text + "\n").join("");

export function json(transcript) {
  const blank = (a, b) => (a && b && !isWide(a.at(-1)) && !isWide(b[0]) ? " " : "");
  const text = transcript.sentences.reduce((all, s) => all + blank(all, s.text) + s.text, "");
  return JSON.stringify({ ...transcript, text }, null, 2) + "\n";
}

const KINDS = { srt: "application/x-subrip", vtt: "text/vtt", txt: "text/plain", json: "application/json" };

export function download(transcript, format, name) {
  const make = { srt, vtt, txt, json }[format];
  const url = URL.createObjectURL(new Blob([make(transcript)], { type: `${KINDS[format]};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${name.replace(/\.[^.]*$/, "") || "transcript"}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
