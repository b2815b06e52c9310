// Every text of the page, in both languages; marks like {n} are filled in.

const TEXTS = {
  en: {
    skip: "To the content", tabs: "What to transcribe", files: "Files", live: "Live",
    tongue: "中文", theme: "Light or dark", key: "API key", useKey: "Use it",
    keyHint: "This server asks for a key; it is kept in this tab only.",
    drop: "Drop recordings or videos here", choose: "Choose files", record: "Record", stopRecord: "Stop and transcribe",
    language: "Language", auto: "Detect automatically", jobs: "Recordings", earlier: "Earlier recordings on this server ({n})", download: "Download", noAudio: "The recording is not here any more.",
    chooseAgain: "Choose it again to listen", play: "Play", pause: "Pause", zoom: "Zoom", timeline: "Waveform and timeline; arrow keys move",
    help: "Click a word to hear it, type to correct it. Space plays, ← and → move by 5 seconds, Ctrl+Enter plays from the cursor. Corrections stay in this browser.",
    listen: "Start listening", stopListen: "Stop", level: "Loudness", captions: "Captions",
    queued: "waiting", position: "waiting, {n} before it", upload: "sending {n} %", decode: "reading the recording",
    vad: "finding speech", asr: "writing: {done} of {total} segments", done: "finished", succeeded: "finished in {n} s",
    failed: "failed", cancelled: "cancelled", cancel: "Cancel", remove: "Remove", open: "Open {n}",
    speech: "speech", music: "music", singing: "singing", spoken: "language", low: "uncertain word",
    limits: "Up to {size} and {hours} hours each. Nothing leaves this server.", nothing: "No speech was found.",
    lost: "The connection to the server was lost; trying again.", noMicrophone: "The microphone cannot be used: {n}",
    listening: "Listening…", finishing: "Finishing…", stopped: "Stopped.", busy: "Too many are listening at the moment; try again soon.",
    playFrom: "Play from {n}", edit: "Sentence at {n}, editable", finished: "{n} is finished.", wrongKey: "The server does not know this key.",
    flags: {
      "unsupported-language": "the recogniser does not cover this language; its text is unreliable",
      routed: "recognised by the fallback recogniser, which covers this language",
      repetition: "a repetition loop was cut out of the text",
      "rate-limited": "the text grew faster than anybody speaks and was stopped",
      "low-coverage": "the text covers only a part of the speech",
      retried: "the first result was implausible; this is a second one",
      "no-speech": "judged to be no speech; its text was dropped",
      "no-text": "speech was found, but nothing was recognised in it",
      music: "music plays here", singing: "somebody sings here",
    },
  },
  zh: {
    skip: "跳到正文", tabs: "转写什么", files: "文件", live: "实时",
    tongue: "English", theme: "浅色或深色", key: "API 密钥", useKey: "使用",
    keyHint: "此服务器需要密钥；密钥只保存在这个标签页里。",
    drop: "把录音或视频拖到这里", choose: "选择文件", record: "录音", stopRecord: "停止并转写",
    language: "语言", auto: "自动识别", jobs: "录音列表", earlier: "此服务器上的早先录音（{n}）", download: "下载", noAudio: "录音已不在此处。",
    chooseAgain: "重新选择以便收听", play: "播放", pause: "暂停", zoom: "缩放", timeline: "波形和时间轴；方向键移动",
    help: "点击词语即可收听，直接输入即可修改。空格键播放，← → 移动 5 秒，Ctrl+Enter 从光标处播放。修改保存在此浏览器中。",
    listen: "开始聆听", stopListen: "停止", level: "音量", captions: "字幕",
    queued: "排队中", position: "排队中，前面还有 {n} 个", upload: "上传中 {n} %", decode: "读取录音",
    vad: "寻找语音", asr: "转写中：{done} / {total} 段", done: "已完成", succeeded: "已完成，用时 {n} 秒",
    failed: "失败", cancelled: "已取消", cancel: "取消", remove: "移除", open: "打开 {n}",
    speech: "语音", music: "音乐", singing: "歌唱", spoken: "语言", low: "不确定的词",
    limits: "每个文件最大 {size}，最长 {hours} 小时。数据不会离开此服务器。", nothing: "没有找到语音。",
    lost: "与服务器的连接中断，正在重试。", noMicrophone: "无法使用麦克风：{n}",
    listening: "正在聆听…", finishing: "正在结束…", stopped: "已停止。", busy: "目前聆听人数过多，请稍后再试。",
    playFrom: "从 {n} 播放", edit: "{n} 的句子，可编辑", finished: "{n} 已完成。", wrongKey: "服务器不认识这个密钥。",
    flags: {
      "unsupported-language": "识别器不支持这种语言，文字不可靠",
      routed: "由支持这种语言的备用识别器识别",
      repetition: "已删去识别器陷入循环而重复的文字",
      "rate-limited": "文字多得超出任何人的语速，已截断",
      "low-coverage": "文字只覆盖了这段语音的一部分",
      retried: "第一次结果不可信，这是第二次的结果",
      "no-speech": "判断为没有语音，文字已去掉",
      "no-text": "检测到语音，但没有识别出文字",
      music: "此处有音乐", singing: "此处有人唱歌",
    },
  },
};

let tongue = localStorage.getItem("tongue") || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export const current = () => tongue;

export function text(name, values = {}) {
  return Object.entries(values).reduce((out, [key, value]) => out.replaceAll(`{${key}}`, value), TEXTS[tongue][name]);
}

/** What a flag of a sentence says to a reader; a flag that the page does not know stands for itself. */
export const flagMeaning = (flag) => TEXTS[tongue].flags[flag] ?? flag;

/** Write every text that stands in the page's HTML. */
export function write() {
  document.documentElement.lang = tongue === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
  document.getElementById("tongue").textContent = text("tongue");
}

export function change() {
  tongue = tongue === "en" ? "zh" : "en";
  localStorage.setItem("tongue", tongue);
  write();
  document.dispatchEvent(new Event("tongue"));
}

const names = {};
export function languageName(code) {
  if (!code) return "";
  const [language, ...dialect] = code.split(" ");
  try {
    names[tongue] ??= new Intl.DisplayNames([tongue], { type: "language" });
    return [names[tongue].of(language), ...dialect].join(" ");
  } catch {
    return code;
  }
}
