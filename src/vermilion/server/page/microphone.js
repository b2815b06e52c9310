// The microphone as 16-bit samples.

export async function open(take) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } });
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule("/page/microphone-worklet.js");
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    throw error;
  }
  const source = context.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(context, "pieces", { numberOfOutputs: 0 });
  node.port.onmessage = ({ data }) => take(data);
  source.connect(node);
  await context.resume();
  return {
    rate: context.sampleRate,
    async close() {
      node.port.onmessage = null;
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
    },
  };
}

export function loudness(samples) {
  let peak = 0;
  for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
  return Math.sqrt(peak / 32768);
}

/** Pieces of samples → a WAV file. */
export function wav(pieces, rate, name) {
  const bytes = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  const head = new DataView(new ArrayBuffer(44));
  const write = (at, text) => [...text].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  write(0, "RIFF");
  head.setUint32(4, 36 + bytes, true);
  write(8, "WAVEfmt ");
  [[16, 16], [24, rate], [28, rate * 2], [40, bytes]].forEach(([at, value]) => head.setUint32(at, value, true));
  [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([at, value]) => head.setUint16(at, value, true));
  write(36, "data");
  return new File([head, ...pieces], name, { type: "audio/wav" });
}
